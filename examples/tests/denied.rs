// SPDX-License-Identifier: Apache-2.0
//! The allow-list on this host's kernel: `ringfenced` as a process of its own, asked through fanotify
//! in a directory that this test made.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(30);

/// Ends with the test, whatever became of it.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program of this workspace: beside the example, where cargo puts all of them.
fn program(name: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_allow-list")).with_file_name(name);
    assert!(program.exists(), "{}: `cargo build --workspace` makes it", program.display());
    program
}

fn run(program: &Path) -> io::Result<()> {
    let status = Command::new(program).stdin(Stdio::null()).status()?;
    assert!(status.success(), "{status}");
    Ok(())
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LIMIT, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "root: loads BPF programs, and has what is executed in a directory of its own asked about"]
fn an_unknown_program_is_denied_and_a_dead_product_denies_nobody() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    for directory in ["grants.d", "tried"] {
        fs::create_dir(at(directory)).unwrap();
    }
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (known, unknown) = (at("tried/known"), at("tried/unknown"));
    for path in [&known, &unknown] {
        fs::copy("/bin/true", path).unwrap();
    }
    fs::write(at("list"), format!("{}\n", known.display())).unwrap();
    let grant = include_str!("../grants/allow-list.toml")
        .replace("/usr/local/bin/allow-list", env!("CARGO_BIN_EXE_allow-list"))
        .replace("\"nobody\"", "\"root\"")
        .replace("deadline_ms = 500", "deadline_ms = 10000");
    fs::write(at("grants.d/allow-list.toml"), grant).unwrap();

    let mut daemon = Command::new(program("ringfenced"));
    daemon.arg("--grants").arg(at("grants.d")).arg("--socket").arg(at("control"));
    daemon.arg("--forget");
    let daemon = Ended(daemon.arg("--ask-directory").arg(at("tried")).spawn().unwrap());
    wait_until("the daemon does not listen", || at("control").exists());
    run(&unknown).expect("nobody decides yet");

    let mut product = Command::new(env!("CARGO_BIN_EXE_allow-list"));
    let product = product.arg(at("list")).arg(at("control")).stdout(Stdio::piped());
    let product = Ended(product.spawn().unwrap());
    wait_until("it never denied anything", || run(&unknown).is_err());
    assert_eq!(run(&unknown).unwrap_err().raw_os_error(), Some(1), "EPERM");
    for _ in 0..20 {
        run(&known).expect("it is on the list");
    }
    // Another directory is nobody's business.
    run(Path::new("/bin/true")).unwrap();

    drop(product);
    wait_until("what a dead product denied is denied for ever", || run(&unknown).is_ok());
    drop(daemon);
    run(&unknown).expect("without a daemon nobody is asked");
}
