// SPDX-License-Identifier: Apache-2.0
//! A daemon with a kernel side of plain tables, on a socket of its own, and clients for it.
#![allow(dead_code, reason = "each test binary uses a part")]

pub(crate) mod idl;
pub(crate) mod million;
pub(crate) mod nobody;

use std::collections::BTreeMap;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::thread::JoinHandleExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use broker::effect::Masks;
use broker::event::{Class, EventSet, EventType};
use broker::slot::{FileKey, ProcessKey, Slot};
use broker::time::Time;
use broker::verdict::Outcome;
use daemon::control::{Control, INTERFACE};
use daemon::kept::Kept;
use daemon::kernel::{
    Asked, Availability, Counts, FakeKernel, Kernel, KernelError, MuteTarget, Prepared, Preparer,
    RuleCount, RulesRefused, Terms,
};
use daemon::server::Server;
use daemon::settings::listen;
use daemon::signals::Signals;
use rules::{Collection, RuleSet};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Name of the client that [`grant`] is for.
pub(crate) const CLIENT: &str = "org.example.test";

/// A kernel side that a test can look into while it is served.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    kernel: Arc<Mutex<FakeKernel>>,
    questions: Arc<OwnedFd>,
}

impl Default for Shared {
    fn default() -> Self {
        let flags = rustix::event::EventfdFlags::NONBLOCK | rustix::event::EventfdFlags::CLOEXEC;
        let questions = rustix::event::eventfd(0, flags).unwrap();
        let ready = Some(questions.try_clone().unwrap());
        let kernel = FakeKernel { ready, ..FakeKernel::default() };
        Self { kernel: Arc::new(Mutex::new(kernel)), questions: Arc::new(questions) }
    }
}

impl Shared {
    pub(crate) fn get(&self) -> MutexGuard<'_, FakeKernel> {
        self.kernel.lock().unwrap()
    }

    /// A task waits, or does not wait any more.
    pub(crate) fn asks(&self, asked: Asked) {
        self.get().asked.push_back(asked);
        rustix::io::write(&self.questions, &1_u64.to_ne_bytes()).unwrap();
    }
}

impl Kernel for Shared {
    fn availability(&self, event: EventType, class: Class) -> Availability {
        self.get().availability(event, class)
    }
    fn admit(&mut self, slot: Slot, ring_bytes: u32) -> Result<OwnedFd, KernelError> {
        self.get().admit(slot, ring_bytes)
    }
    fn remove(&mut self, slot: Slot) -> Result<(), KernelError> {
        self.get().remove(slot)
    }
    fn subscribe(
        &mut self,
        slot: Slot,
        masks: &Masks,
        terms: &BTreeMap<EventType, Terms>,
    ) -> Result<(), KernelError> {
        self.get().subscribe(slot, masks, terms)
    }
    fn watch(&mut self, slot: Slot, paths: &[String], asked: bool) -> Result<(), KernelError> {
        self.get().watch(slot, paths, asked)
    }

    fn exempt(&mut self, slot: Slot, process: ProcessKey) -> Result<(), KernelError> {
        self.get().exempt(slot, process)
    }
    fn questions(&self) -> Option<BorrowedFd<'_>> {
        Some(self.questions.as_fd())
    }
    fn next_question(&mut self) -> Result<Option<Asked>, KernelError> {
        self.get().next_question()
    }
    fn ask(&mut self, slot: Slot, event_id: u64, deadline: Time) -> Result<bool, KernelError> {
        self.get().ask(slot, event_id, deadline)
    }
    fn settle(&mut self, event_id: u64, outcome: Outcome) -> Result<(), KernelError> {
        self.get().settle(event_id, outcome)
    }
    fn remember(&mut self, slot: Slot, event: EventType, file: FileKey) -> Result<(), KernelError> {
        self.get().remember(slot, event, file)
    }
    fn forget_file(
        &mut self,
        slot: Slot,
        event: EventType,
        file: FileKey,
    ) -> Result<(), KernelError> {
        self.get().forget_file(slot, event, file)
    }
    fn forget(&mut self, slot: Slot) -> Result<(), KernelError> {
        self.get().forget(slot)
    }
    fn beats(&self) -> bool {
        self.get().beats()
    }

    fn beat(&mut self) -> Result<(), KernelError> {
        self.get().beat()
    }
    fn mute(&mut self, slot: Slot, target: &MuteTarget) -> Result<(), KernelError> {
        self.get().mute(slot, target)
    }
    fn unmute(&mut self, slot: Slot, target: &MuteTarget) -> Result<(), KernelError> {
        self.get().unmute(slot, target)
    }
    fn invert(&mut self, slot: Slot, inverted: bool) -> Result<(), KernelError> {
        self.get().invert(slot, inverted)
    }
    fn waiting(&self, slot: Slot) -> Result<u32, KernelError> {
        self.get().waiting(slot)
    }
    fn install_rules(&mut self, slot: Slot, set: &RuleSet) -> Result<(), RulesRefused> {
        self.get().install_rules(slot, set)
    }
    fn allow_rules(&mut self, slot: Slot, types: EventSet) -> Result<(), KernelError> {
        self.get().allow_rules(slot, types)
    }
    fn remove_rules(&mut self, slot: Slot) -> Result<(), KernelError> {
        self.get().remove_rules(slot)
    }
    fn keep_rules(&mut self, pins: &Path) -> Result<(), KernelError> {
        self.get().keep_rules(pins)
    }
    fn let_go_of_older(&mut self) -> Result<(), KernelError> {
        self.get().let_go_of_older()
    }
    fn rule_counts(&self, slot: Slot) -> Result<Vec<RuleCount>, KernelError> {
        self.get().rule_counts(slot)
    }
    fn preparer(&self) -> Preparer {
        self.get().preparer()
    }
    fn set_collection(
        &mut self,
        slot: Slot,
        name: &str,
        prepared: Prepared,
    ) -> Result<Collection, RulesRefused> {
        self.get().set_collection(slot, name, prepared)
    }
    fn remove_collection(&mut self, slot: Slot, name: &str) -> Result<(), RulesRefused> {
        self.get().remove_collection(slot, name)
    }
    fn counts(&self, slot: Slot) -> Result<Counts, KernelError> {
        self.get().counts(slot)
    }
    fn write(&mut self, slot: Slot, record: &[u8]) -> Result<(), KernelError> {
        self.get().write(slot, record)
    }
    fn keys(&mut self, pid: u32) -> Result<Option<(ProcessKey, ProcessKey)>, KernelError> {
        // This test's own, at its true time, as QueryProcess holds both against each other.
        let found = daemon::identity::Held::open(pid)
            .and_then(|held| daemon::process::Process::read(&held));
        let key = |pid, start| ProcessKey { pid, start };
        let failing = self.get().keys(pid)?;
        Ok(found
            .ok()
            .map_or(failing, |read| Some((key(pid, read.started + 1), key(read.parent, 1)))))
    }
}

/// A daemon that serves in a thread until it is dropped.
pub(crate) struct Daemon {
    pub(crate) kernel: Shared,
    pub(crate) grants: PathBuf,
    pub(crate) socket: PathBuf,
    thread: Option<JoinHandle<()>>,
    _directory: TempDir,
}

/// A grant for this process: its executable, its user, and some events.
pub(crate) fn grant(client: &str, altitude: u32) -> String {
    let executable = std::env::current_exe().unwrap();
    let uid = rustix::process::geteuid().as_raw();
    format!(
        "client = \"{client}\"\naltitude = \"{altitude}\"\n[identity]\nexecutable = {executable:?}\n\
         uid = {uid}\n[events.process_exec]\nclasses = [\"notify\", \"ask\"]\n\
         [events.process_fork]\nclasses = [\"notify\"]\n\
         [events.file_open]\nclasses = [\"notify\"]\n"
    )
}

impl Daemon {
    /// With the grants, each a name and a text, besides one for [`CLIENT`].
    pub(crate) fn start(grants: &[(&str, &str)]) -> Self {
        Self::start_with(Shared::default(), grants)
    }

    pub(crate) fn start_with(kernel: Shared, others: &[(&str, &str)]) -> Self {
        let own = ("test.toml", grant(CLIENT, 1000));
        let others = others.iter().map(|(name, text)| (*name, (*text).to_owned()));
        let files: Vec<_> = [own].into_iter().chain(others).collect();
        Self::launch(kernel.clone(), kernel, &files, None, None)
    }

    /// With this grant alone, and rules that are kept in a directory.
    pub(crate) fn start_keeping(kernel: Shared, grant: &str, kept: &Path) -> Self {
        let files = [("test.toml", grant.to_owned())];
        Self::launch(kernel.clone(), kernel, &files, None, Some(kept))
    }

    /// On another kernel side, with this grant.
    pub(crate) fn start_on<K: Kernel + Send + 'static>(kernel: K, grant: &str) -> Self {
        Self::launch(kernel, Shared::default(), &[("test.toml", grant.to_owned())], None, None)
    }

    /// On the tables, with this grant alone.
    pub(crate) fn start_on_fake(grant: &str) -> Self {
        let kernel = Shared::default();
        Self::launch(kernel.clone(), kernel, &[("test.toml", grant.to_owned())], None, None)
    }

    /// On the tables, with these grants and this program as the guard.
    pub(crate) fn start_guarded(guard: PathBuf, files: &[(&str, String)]) -> Self {
        let kernel = Shared::default();
        Self::launch(kernel.clone(), kernel, files, Some(guard), None)
    }

    fn launch<K: Kernel + Send + 'static>(
        served: K,
        kernel: Shared,
        files: &[(&str, String)],
        guard: Option<PathBuf>,
        kept: Option<&Path>,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (grants, socket) =
            (directory.path().join("grants.d"), directory.path().join("control"));
        std::fs::create_dir(&grants).unwrap();
        for (name, text) in files {
            std::fs::write(grants.join(name), text).unwrap();
        }
        let (sender, ready) = mpsc::channel();
        let (at, of) = (socket.clone(), grants.clone());
        let kept = kept.map(|kept| Kept::open(kept).unwrap());
        let thread = std::thread::spawn(move || {
            let signals = Signals::catch().unwrap();
            let mut control = Control::new(served, of).unwrap();
            if let Some(kept) = kept {
                control.keep_rules(kept, Path::new("/pins"));
            }
            if let Some(guard) = guard {
                control.run_guard(guard).unwrap();
            }
            let mut server = Server::new(control, listen(&at).unwrap(), signals).unwrap();
            sender.send(()).unwrap();
            server.run().unwrap();
        });
        ready.recv_timeout(Duration::from_secs(30)).unwrap();
        Self { kernel, grants, socket, thread: Some(thread), _directory: directory }
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(&self.socket)
    }

    /// A client whose session is open.
    pub(crate) fn session(&self) -> Client {
        let mut client = self.connect();
        let reply = client.open(CLIENT);
        assert!(reply.get("error").is_none(), "{reply}");
        client
    }

    /// Sends its thread a signal.
    pub(crate) fn signal(&self, signal: i32) {
        let thread = self.thread.as_ref().unwrap().as_pthread_t();
        // SAFETY: the thread was not joined, so the handle is valid; the signal is blocked in it.
        assert_eq!(unsafe { libc::pthread_kill(thread, signal) }, 0);
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(&mut self) {
        if self.thread.is_some() {
            self.signal(libc::SIGTERM);
            self.thread.take().unwrap().join().unwrap();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
    }
}

/// A connection.
pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    received: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

impl Client {
    pub(crate) fn connect(socket: &std::path::Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self { stream, received: Vec::new(), descriptors: Vec::new() }
    }

    pub(crate) fn send(&mut self, message: &Value) {
        self.stream.write_all(format!("{message}\0").as_bytes()).unwrap();
    }

    /// The next reply; `None` if the connection was closed.
    pub(crate) fn receive(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == 0) {
                let message: Vec<u8> = self.received.drain(..=end).collect();
                return Some(serde_json::from_slice(&message[..end]).unwrap());
            }
            let mut buffer = [0; 4096];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut into = [IoSliceMut::new(&mut buffer)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let got = match recvmsg(&self.stream, &mut into, &mut ancillary, flags) {
                Ok(got) => got.bytes,
                Err(rustix::io::Errno::CONNRESET) => 0,
                Err(error) => panic!("no reply: {error}"),
            };
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    self.descriptors.extend(descriptors);
                }
            }
            if got == 0 {
                return None;
            }
            self.received.extend_from_slice(&buffer[..got]);
        }
    }

    /// Calls a method of the control interface; the whole reply, held to the interface's text.
    pub(crate) fn call(&mut self, method: &str, parameters: Value) -> Value {
        let name = format!("{}.{method}", INTERFACE.name);
        self.send(&json!({ "method": name, "parameters": parameters }));
        let reply = self.receive().expect("a reply");
        check(method, &reply);
        reply
    }

    /// Calls a method that succeeds; its results.
    pub(crate) fn ok(&mut self, method: &str, parameters: Value) -> Value {
        let mut reply = self.call(method, parameters);
        assert!(reply.get("error").is_none(), "{method}: {reply}");
        reply["parameters"].take()
    }

    /// Calls a method that fails; the error's last name and its parameters.
    pub(crate) fn fails(&mut self, method: &str, parameters: Value) -> (String, Value) {
        let mut reply = self.call(method, parameters);
        let error = reply["error"].as_str().unwrap_or_else(|| panic!("{method}: {reply}"));
        let name = error.rsplit('.').next().unwrap().to_owned();
        (name, reply["parameters"].take())
    }

    pub(crate) fn open(&mut self, client: &str) -> Value {
        let versions = json!([{ "major": 1, "minor": 0 }]);
        self.call("OpenSession", json!({ "client": client, "versions": versions }))
    }

    /// Whether the other end closes the connection.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// Fails unless the reply is as the interface's text says.
fn check(method: &str, reply: &Value) {
    let interface = idl::Interface::parse(INTERFACE.description);
    let parameters = &reply["parameters"];
    match reply.get("error").map(|error| error.as_str().unwrap()) {
        None => {
            let (_, results) = interface.methods.get(method).expect("a declared method");
            interface.check(parameters, results, method);
        }
        Some(error) => {
            if let Some(name) = error.strip_prefix(&format!("{}.", INTERFACE.name)) {
                let declared = interface.errors.get(name).expect("a declared error");
                interface.check(parameters, declared, name);
            } else {
                assert!(error.starts_with("org.varlink.service."), "{error}");
            }
        }
    }
}
