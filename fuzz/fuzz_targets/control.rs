// SPDX-License-Identifier: Apache-2.0
//! What a client sends to the control socket: messages cut out of bytes, calls, their parameters, and
//! what each method makes of them, with a session and a kernel side of plain tables.
#![no_main]

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use daemon::control::{Answer, Caller, Control};
use daemon::identity::Peer;
use daemon::kernel::FakeKernel;
use daemon::varlink::{Call, Incoming};

const CONNECTION: u64 = 4;
const OPEN: &[u8] = br#"{"method":"io.ringfence.Control.OpenSession","parameters":
    {"client":"org.example.fuzz","versions":[{"major":1,"minor":0}]}}"#;

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
        let grant = format!(
            "client = \"org.example.fuzz\"\naltitude = \"1\"\n[identity]\nexecutable = {executable:?}\n\
             [events.process_exec]\nclasses = [\"notify\", \"ask\"]\n"
        );
        std::fs::write(directory.join("fuzz.toml"), grant).expect("a grant");
        let control = Control::new(FakeKernel::default(), PathBuf::from(&directory));
        let control = control.expect("the control plane");
        std::fs::remove_dir_all(directory).expect("the directory is there");
        let peer = Peer::this(1000).expect("this process");
        Self { control, peer }
    }

    fn call(&mut self, message: &[u8]) {
        let Ok(call) = Call::parse(message) else { return };
        let caller = Caller { connection: CONNECTION, peer: &self.peer };
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
        if !served.control.has_session(CONNECTION) {
            served.call(OPEN);
            assert!(served.control.has_session(CONNECTION), "a session can be opened");
        }
        let mut incoming = Incoming::default();
        for piece in data.chunks(7) {
            incoming.push(piece);
            while let Ok(Some(message)) = incoming.take(1 << 20) {
                served.call(&message);
            }
        }
    });
});
