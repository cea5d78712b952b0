// SPDX-License-Identifier: Apache-2.0
//! `ringfenced`: reads the settings, puts the parts together and serves.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use daemon::control::Control;
use daemon::descriptors;
use daemon::kept::Kept;
use daemon::kernel::LiveKernel;
use daemon::log;
use daemon::server::Server;
use daemon::settings::{Settings, listen};
use daemon::signals::Signals;

fn main() -> ExitCode {
    match run(&Settings::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::note(&format_args!("{error:#}"));
            ExitCode::from(2)
        }
    }
}

fn run(settings: &Settings) -> anyhow::Result<()> {
    // First, so that threads that start later leave these signals to this one.
    let signals = Signals::catch().context("catching signals")?;
    descriptors::raise_limit();
    // Before the kernel is told anything: what another one keeps is not to be taken from it.
    let kept = if settings.forget { None } else { Some(Kept::open(&settings.state)?) };
    let pins = kept.is_some().then_some(settings.pins.as_path());
    let kernel = LiveKernel::load(&settings.ask_directory, pins)?;
    let mut control = Control::new(kernel, settings.grants.clone())?;
    if let Some(kept) = kept {
        control.keep_rules(kept, &settings.pins);
    }
    let listener = listen(&settings.socket)?;
    if let Some(guard) = settings.guard()? {
        control.run_guard(guard)?;
    }
    log::note(&format_args!("listening at {}", settings.socket.display()));
    let served = Server::new(control, listener, signals).and_then(|mut server| server.run());
    // Whoever comes next finds nobody, instead of a socket that nobody listens on.
    let _ = std::fs::remove_file(&settings.socket);
    served.context("serving")
}
