// SPDX-License-Identifier: Apache-2.0
//! What the control interface says of what a record names: processes by their keys, files by what is in them.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::json;
use sha2::Digest;
use support::Daemon;

#[test]
fn a_process_is_described_by_its_key() {
    let daemon = Daemon::start(&[]);
    let mut client = daemon.session();
    let pid = std::process::id();
    let process = client.ok("QueryProcess", json!({ "pid": pid }))["process"].take();
    let own = std::env::current_exe().unwrap();
    assert_eq!(process["executable"]["path"], own.to_str().unwrap());
    assert_eq!(process["parent"]["pid"], std::os::unix::process::parent_id());
    let start = process["key"]["start"].as_u64().unwrap();
    client.ok("QueryProcess", json!({ "pid": pid, "start": start }));
    for other in [json!({ "pid": pid, "start": start + 1 }), json!({ "pid": 0 })] {
        assert_eq!(client.fails("QueryProcess", other).0, "ProcessNotFound");
    }
}

#[test]
fn the_file_that_a_process_runs_is_measured() {
    let daemon = Daemon::start(&[]);
    let mut client = daemon.session();
    let query = json!({ "pid": std::process::id() });
    let executable = client.ok("QueryProcess", query)["process"]["executable"].take();
    let call = json!({ "path": executable["path"], "file": executable["file"] });
    // Both times the same, and the calls of one connection in order.
    for _ in 0..2 {
        let measured = client.ok("MeasureFile", call.clone());
        let contents = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let digest = broker::grant::Sha256(sha2::Sha256::digest(&contents).into()).to_string();
        assert_eq!(measured, json!({ "sha256": digest, "size": contents.len() }));
    }
    let mut other = call.clone();
    other["file"]["inode"] = json!(1);
    let (error, about) = client.fails("MeasureFile", other);
    assert_eq!((error.as_str(), &about["path"]), ("FileUnavailable", &executable["path"]));
    let relative = json!({ "path": "bin/sh", "file": executable["file"] });
    assert_eq!(client.fails("MeasureFile", relative).0, "InvalidArgument");
}

#[test]
fn what_everybody_may_read_is_measured_and_what_only_its_owner_may_is_not() {
    let daemon = Daemon::start(&[]);
    let mut client = daemon.session();
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().canonicalize().unwrap();
    let about = std::fs::metadata(&path).unwrap();
    let (dev, inode) = (about.dev(), about.ino());
    let device = u64::from(libc::major(dev)) << 20 | u64::from(libc::minor(dev));
    for (mode, is_measured) in [(0o600, false), (0o640, false), (0o644, true), (0o700, true)] {
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let key = json!({ "device": device, "inode": inode });
        let answer = client.call("MeasureFile", json!({ "path": path, "file": key }));
        assert_eq!(answer.get("error").is_none(), is_measured, "{mode:o}: {answer}");
    }
}
