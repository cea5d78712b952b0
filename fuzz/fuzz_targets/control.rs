// SPDX-License-Identifier: Apache-2.0
//! What two clients send to the control socket: messages cut out of bytes, calls, their parameters, and
//! what each method makes of them, with a session each and a kernel side of plain tables. Whatever one of
//! them sends, the other's session stays.
#![no_main]

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use daemon::control::{Answer, Caller, Control};
use daemon::identity::Peer;
use daemon::kernel::FakeKernel;
use daemon::varlink::{Call, Incoming};

/// The connections, and the clients that they are: one that is told and asked, and one of all classes.
const CLIENTS: [(u64, &str, &str); 2] = [
    (4, "fuzz", r#"["notify", "ask"]"#),
    (5, "rules", r#"["notify", "rule", "ask"]"#),
];

struct Served {
    control: Control<FakeKernel>,
    peer: Peer,
}

thread_local! {
    static SERVED: RefCell<Served> = RefCell::new(Served::new());
}

impl Served {
    fn new() -> Self {
        let directory = std::env::temp_dir().join(format!("ringfence-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory for a grant");
        let executable = std::env::current_exe().expect("the path of this program");
        for (connection, name, classes) in CLIENTS {
            let grant = format!(
                "client = \"org.example.{name}\"\naltitude = \"{connection}\"\n[identity]\n\
                 executable = {executable:?}\n[limits]\nmax_rules = 16\nmax_digests = 64\n\
                 [events.process_exec]\nclasses = {classes}\n"
            );
            std::fs::write(directory.join(format!("{name}.toml")), grant).expect("a grant");
        }
        let control = Control::new(FakeKernel::default(), PathBuf::from(&directory));
        let control = control.expect("the control plane");
        std::fs::remove_dir_all(directory).expect("the directory is there");
        let peer = Peer::this(1000).expect("this process");
        Self { control, peer }
    }

    /// Both clients have their sessions.
    fn open(&mut self) {
        for (connection, name, _) in CLIENTS {
            if !self.control.has_session(connection) {
                let parameters = format!(
                    r#"{{"client":"org.example.{name}","versions":[{{"major":1,"minor":0}}]}}"#
                );
                let open = format!(
                    r#"{{"method":"io.ringfence.Control.OpenSession","parameters":{parameters}}}"#
                );
                self.call(connection, open.as_bytes());
                assert!(self.control.has_session(connection), "{name} can open a session");
            }
        }
    }

    fn call(&mut self, connection: u64, message: &[u8]) {
        let Ok(call) = Call::parse(message) else { return };
        let caller = Caller { connection, peer: &self.peer };
        match self.control.call(&caller, &call) {
            Ok(Answer::Now { message, .. }) => {
                assert!(serde_json::from_slice::<serde_json::Value>(&message).is_ok());
            }
            Ok(Answer::Later) => {
                let began = Instant::now();
                while self.control.measured().is_none() {
                    assert!(began.elapsed() < Duration::from_secs(5), "a measurement ends");
                    std::thread::sleep(Duration::from_micros(20));
                }
            }
            Err(error) => assert!(serde_json::to_vec(&error).is_ok()),
        }
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = daemon::verdicts::parse(data);
    SERVED.with_borrow_mut(|served| {
        served.open();
        let mut incoming = Incoming::default();
        for piece in data.chunks(7) {
            incoming.push(piece);
            while let Ok(Some(message)) = incoming.take(1 << 20) {
                // Which of them it is from: anything, but the same each time.
                let (from, other) = if message.len() % 2 == 0 { (4, 5) } else { (5, 4) };
                let had = served.control.has_session(other);
                served.call(from, &message);
                assert_eq!(served.control.has_session(other), had, "the other feels it");
            }
        }
    });
});
