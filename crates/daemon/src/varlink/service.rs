// SPDX-License-Identifier: Apache-2.0
//! The interface that each varlink service has: who it is, and the text of its interfaces.

use serde::{Deserialize, Serialize};

use super::Call;

/// Its name.
pub const SERVICE: &str = "org.varlink.service";

/// Its text, as the varlink specification has it.
const DESCRIPTION: &str = "\
# The Varlink Service Interface is provided by every varlink service. It
# describes the service and the interfaces it implements.
interface org.varlink.service

# Get a list of all the interfaces a service provides and information
# about the implementation.
method GetInfo() -> (
  vendor: string,
  product: string,
  version: string,
  url: string,
  interfaces: []string
)

# Get the description of an interface that is implemented by this service.
method GetInterfaceDescription(interface: string) -> (description: string)

# The requested interface was not found.
error InterfaceNotFound (interface: string)

# The requested method was not found
error MethodNotFound (method: string)

# The interface defines the requested method, but the service does not
# implement it.
error MethodNotImplemented (method: string)

# One of the passed parameters is invalid.
error InvalidParameter (parameter: string)
";

/// An interface that the service has besides.
#[derive(Clone, Copy, Debug)]
pub struct Interface {
    /// Its name.
    pub name: &'static str,
    /// Its text, comments included.
    pub description: &'static str,
}

/// Who the service is.
#[derive(Clone, Copy, Debug)]
pub struct ServiceInfo {
    /// Who made it.
    pub vendor: &'static str,
    /// What it is.
    pub product: &'static str,
    /// Which version.
    pub version: &'static str,
    /// Where there is more about it.
    pub url: &'static str,
    /// What it has besides `org.varlink.service`.
    pub interface: Interface,
}

/// The errors that every service has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ServiceError {
    /// No interface of this name.
    InterfaceNotFound {
        /// Its name.
        interface: String,
    },
    /// No method of this name in the interface.
    MethodNotFound {
        /// Its full name.
        method: String,
    },
    /// A parameter is missing, unknown, or not what it should be.
    InvalidParameter {
        /// Which, or what is wrong with all of them.
        parameter: String,
    },
}

impl ServiceError {
    /// Its full name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::InterfaceNotFound { .. } => "org.varlink.service.InterfaceNotFound",
            Self::MethodNotFound { .. } => "org.varlink.service.MethodNotFound",
            Self::InvalidParameter { .. } => "org.varlink.service.InvalidParameter",
        }
    }
}

impl ServiceInfo {
    /// Answers a call of `org.varlink.service`.
    pub fn call(&self, call: &Call<'_>) -> Result<serde_json::Value, ServiceError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Nothing {}
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Description {
            interface: String,
        }
        let invalid = |parameter| ServiceError::InvalidParameter { parameter };
        match call.method().1 {
            "GetInfo" => {
                let Nothing {} = call.parameters().map_err(invalid)?;
                Ok(serde_json::json!({
                    "vendor": self.vendor,
                    "product": self.product,
                    "version": self.version,
                    "url": self.url,
                    "interfaces": [SERVICE, self.interface.name],
                }))
            }
            "GetInterfaceDescription" => {
                let Description { interface } = call.parameters().map_err(invalid)?;
                let description = match interface.as_str() {
                    SERVICE => DESCRIPTION,
                    name if name == self.interface.name => self.interface.description,
                    _ => return Err(ServiceError::InterfaceNotFound { interface }),
                };
                Ok(serde_json::json!({ "description": description }))
            }
            _ => Err(ServiceError::MethodNotFound { method: call.name().to_owned() }),
        }
    }
}
