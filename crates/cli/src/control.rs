// SPDX-License-Identifier: Apache-2.0
//! Calls to a running `ringfenced`, over varlink: one connection, one method after the other.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::screen::{Output, Style};

/// Where the daemon listens unless it is told otherwise.
pub(crate) const SOCKET: &str = "/run/ringfence/control";
const INTERFACE: &str = "io.ringfence.Control";
/// How long a reply may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// No reply is longer, in bytes.
const LONGEST: usize = 16 << 20;

/// Where ringfenced is.
#[derive(Args, Debug)]
pub(crate) struct Socket {
    /// Socket of ringfenced
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
}

/// What is asked of ringfenced, to be shown.
#[derive(Args, Debug)]
pub(crate) struct Query {
    #[command(flatten)]
    socket: Socket,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

impl Query {
    /// The daemon that is asked.
    pub(crate) fn daemon(&self) -> anyhow::Result<Daemon> {
        Daemon::connect(&self.socket)
    }

    /// Prints what it said, as it is or in words.
    pub(crate) fn show<T: Serialize>(
        &self,
        said: &T,
        in_words: impl FnOnce(&T, Style) -> String,
    ) -> anyhow::Result<()> {
        let text = if self.json {
            format!("{}\n", serde_json::to_string_pretty(said)?)
        } else {
            in_words(said, Style::of_stdout())
        };
        Ok(Output::stdout().put(&text)?)
    }
}

/// A connection to the daemon.
#[derive(Debug)]
pub(crate) struct Daemon {
    stream: UnixStream,
}

impl Daemon {
    /// The daemon that listens there. The error says what to do if there is none.
    pub(crate) fn connect(socket: &Socket) -> anyhow::Result<Self> {
        let path = &socket.socket;
        let stream = UnixStream::connect(path).map_err(|error| no_daemon(path, &error))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream })
    }

    /// Calls a method that has no parameters.
    pub(crate) fn call<T: DeserializeOwned>(&mut self, method: &str) -> anyhow::Result<T> {
        self.call_with(method, &json!({}))
    }

    /// Calls a method.
    pub(crate) fn call_with<T: DeserializeOwned>(
        &mut self,
        method: &str,
        parameters: &Value,
    ) -> anyhow::Result<T> {
        let method_name = format!("{INTERFACE}.{method}");
        let call = json!({ "method": method_name, "parameters": parameters });
        self.stream.write_all(format!("{call}\0").as_bytes()).context("calling ringfenced")?;
        let reply = self.reply().with_context(|| format!("waiting for the reply to {method}"))?;
        let mut reply: Value = serde_json::from_slice(&reply).context("ringfenced's reply")?;
        let parameters = reply.get_mut("parameters").map(Value::take).unwrap_or(json!({}));
        if let Some(error) = reply.get("error").and_then(Value::as_str) {
            return Err(refused(error, &parameters));
        }
        serde_json::from_value(parameters).with_context(|| format!("ringfenced's {method}"))
    }

    fn reply(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut reply = Vec::new();
        let mut buffer = [0; 16 << 10];
        loop {
            let count = self.stream.read(&mut buffer)?;
            if count == 0 {
                bail!("ringfenced closed the connection; its log says why");
            }
            reply.extend_from_slice(buffer.get(..count).unwrap_or_default());
            if reply.last() == Some(&0) {
                reply.pop();
                return Ok(reply);
            }
            if reply.len() > LONGEST {
                bail!("the reply is longer than {LONGEST} bytes");
            }
        }
    }
}

fn no_daemon(path: &Path, error: &std::io::Error) -> anyhow::Error {
    let path = path.display();
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => anyhow!(
            "ringfenced does not listen at {path}; start it with `sudo ringfenced`, or say with \
             --socket where it listens"
        ),
        ErrorKind::PermissionDenied => {
            anyhow!("{path} cannot be reached: {error}; its directory must be open for all")
        }
        _ => anyhow!("{path}: {error}"),
    }
}

/// An error of the interface in words: its last name, and its fields.
fn refused(error: &str, parameters: &Value) -> anyhow::Error {
    let name = error.rsplit('.').next().unwrap_or(error);
    if name == "NotAdministrator" {
        return anyhow!("only root is told; use sudo");
    }
    anyhow!("ringfenced refused: {name} {parameters}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn answering(reply: &'static str) -> (tempfile::TempDir, Socket) {
        let directory = tempfile::tempdir().unwrap();
        let socket = Socket { socket: directory.path().join("control") };
        let listener = UnixListener::bind(&socket.socket).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut call = [0; 1024];
            let _ = stream.read(&mut call).unwrap();
            stream.write_all(reply.as_bytes()).unwrap();
        });
        (directory, socket)
    }

    #[test]
    fn without_a_daemon_it_is_said_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let socket = Socket { socket: directory.path().join("control") };
        let error = Daemon::connect(&socket).unwrap_err().to_string();
        assert!(error.contains("start it with `sudo ringfenced`"), "{error}");
    }

    #[test]
    fn a_reply_and_an_error_are_told_apart() {
        let (_directory, socket) = answering("{\"parameters\":{\"a\":1}}\0");
        let value: Value = Daemon::connect(&socket).unwrap().call("A").unwrap();
        assert_eq!(value, json!({ "a": 1 }));
        let (_directory, socket) =
            answering("{\"error\":\"io.ringfence.Control.NotAdministrator\",\"parameters\":{}}\0");
        let error = Daemon::connect(&socket).unwrap().call::<Value>("A").unwrap_err();
        assert!(error.to_string().contains("use sudo"), "{error}");
    }

    #[test]
    fn a_connection_that_is_closed_is_no_reply() {
        let (_directory, socket) = answering("{\"parameters\":");
        let error = Daemon::connect(&socket).unwrap().call::<Value>("A").unwrap_err();
        assert!(format!("{error:#}").contains("closed the connection"), "{error:#}");
    }
}
