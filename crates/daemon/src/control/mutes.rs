// SPDX-License-Identifier: Apache-2.0
//! Methods for what a session does not want to see: Mute, Unmute, ListMutes, InvertMutes.

use serde::{Deserialize, Serialize};

use super::types::{Done, Nothing, Target};
use super::{Answer, Caller, Control, ControlError, parameters, reply};
use crate::kernel::{Kernel, KernelError, MuteTarget};
use crate::varlink::Call;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Targets {
    mutes: Vec<Target>,
}

impl Targets {
    fn parse(self) -> Result<Vec<MuteTarget>, ControlError> {
        self.mutes.into_iter().map(Target::parse).collect()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Inversion {
    inverted: bool,
}

#[derive(Serialize)]
struct Mutes {
    mutes: Vec<Target>,
    inverted: bool,
}

impl<K: Kernel> Control<K> {
    pub(super) fn mute(
        &mut self,
        caller: &Caller<'_>,
        call: &Call<'_>,
    ) -> Result<Answer, ControlError> {
        let Self { kernel, sessions, .. } = self;
        let session = sessions.of(caller.connection)?;
        let mut new = parameters::<Targets>(call)?.parse()?;
        new.sort_unstable();
        new.dedup();
        new.retain(|target| !session.mutes.contains(target));
        let limit = u64::from(session.mutes_max);
        if (session.mutes.len() + new.len()) as u64 > limit {
            return Err(ControlError::LimitExceeded { what: "mutes", limit });
        }
        for (done, target) in new.iter().enumerate() {
            if let Err(error) = kernel.mute(session.slot, target) {
                // All or none.
                let back = new.iter().take(done).map(|target| kernel.unmute(session.slot, target));
                back.filter_map(Result::err).for_each(|error| crate::log::error(&error));
                return Err(error.into());
            }
        }
        session.mutes.extend(new);
        reply(&Done {})
    }

    pub(super) fn unmute(
        &mut self,
        caller: &Caller<'_>,
        call: &Call<'_>,
    ) -> Result<Answer, ControlError> {
        let Self { kernel, sessions, .. } = self;
        let session = sessions.of(caller.connection)?;
        let mut old = parameters::<Targets>(call)?.parse()?;
        old.retain(|target| session.mutes.contains(target));
        let mut refused: Option<KernelError> = None;
        for target in old {
            // One that stays muted must stay on the list too.
            match kernel.unmute(session.slot, &target) {
                Ok(()) => _ = session.mutes.remove(&target),
                Err(error) => refused = Some(error),
            }
        }
        match refused {
            Some(error) => Err(error.into()),
            None => reply(&Done {}),
        }
    }

    pub(super) fn list_mutes(
        &mut self,
        caller: &Caller<'_>,
        call: &Call<'_>,
    ) -> Result<Answer, ControlError> {
        let Nothing {} = parameters(call)?;
        let session = self.sessions.of(caller.connection)?;
        let mutes = session.mutes.iter().map(Target::from).collect();
        reply(&Mutes { mutes, inverted: session.inverted })
    }

    pub(super) fn invert_mutes(
        &mut self,
        caller: &Caller<'_>,
        call: &Call<'_>,
    ) -> Result<Answer, ControlError> {
        let Self { kernel, sessions, .. } = self;
        let session = sessions.of(caller.connection)?;
        let Inversion { inverted } = parameters(call)?;
        kernel.invert(session.slot, inverted)?;
        session.inverted = inverted;
        reply(&Done {})
    }
}
