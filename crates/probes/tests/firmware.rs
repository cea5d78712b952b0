// SPDX-License-Identifier: Apache-2.0
//! Firmware that the kernel reads from a file is told of, and denied by a rule with its errno.
//!
//! A driver that asks for some whenever it is told to is cfg80211, for what is allowed by radio where:
//! `NL80211_CMD_RELOAD_REGDB` gives its caller the errno that reading /lib/firmware/regulatory.db failed
//! with (net/wireless/reg.c, Linux 6.18). What the file holds here is none, which is found out after the
//! hook was passed.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod clients;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::path::Path;

use clients::listener::Listener;
use clients::ruler::doors_are_denied;
use probes::events::EventType;

const FILE: &str = "/lib/firmware/regulatory.db";
const DOOR: &str = "request_firmware, from a file";

/// `NETLINK_GENERIC`, `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_FAMILY_NAME` and
/// `CTRL_ATTR_FAMILY_ID` of linux/netlink.h and linux/genetlink.h, `NL80211_CMD_RELOAD_REGDB` of
/// linux/nl80211.h.
const GENERIC: i32 = 16;
const CONTROL: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_NAME: u16 = 2;
const FAMILY_ID: u16 = 1;
const RELOAD: u8 = 126;
/// `NLMSG_ERROR`, which also acknowledges; `NLM_F_REQUEST` and `NLM_F_ACK`.
const ERROR: u16 = 2;
const FLAGS: u16 = 5;

/// What talks to the kernel's drivers for radio.
struct Radio {
    socket: File,
    family: u16,
}

impl Radio {
    /// None where there is no such driver.
    fn open() -> Option<Self> {
        // SAFETY: a descriptor that was just made for us.
        let socket = unsafe {
            let flags = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
            let socket = libc::socket(libc::AF_NETLINK, flags, GENERIC);
            assert!(socket >= 0, "{}", std::io::Error::last_os_error());
            File::from_raw_fd(socket)
        };
        let mut radio = Self { socket, family: CONTROL };
        let name = b"nl80211\0";
        let mut attribute = (4 + name.len() as u16).to_ne_bytes().to_vec();
        attribute.extend(FAMILY_NAME.to_ne_bytes());
        attribute.extend(name);
        radio.send(GET_FAMILY, &attribute);
        let reply = radio.receive().ok()?;
        let mut attributes = &reply[20..];
        while attributes.len() >= 4 {
            let half = |at: usize| u16::from_ne_bytes([attributes[at], attributes[at + 1]]);
            if half(2) == FAMILY_ID {
                radio.family = half(4);
                // What acknowledges.
                assert_eq!(radio.receive(), Err(0));
                return Some(radio);
            }
            attributes = &attributes[usize::from(half(0)).next_multiple_of(4)..];
        }
        panic!("a family without a number: {reply:?}")
    }

    fn send(&mut self, command: u8, attributes: &[u8]) {
        let length = 20 + attributes.len() as u32;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(self.family.to_ne_bytes());
        message.extend(FLAGS.to_ne_bytes());
        // Sequence and port, then command, version and nothing.
        message.extend([0; 8]);
        message.extend([command, 1, 0, 0]);
        message.extend(attributes);
        assert_eq!(self.socket.write(&message).unwrap(), message.len());
    }

    /// A message, or the errno of one that is an error: 0 acknowledges.
    fn receive(&mut self) -> Result<Vec<u8>, i32> {
        let mut message = vec![0; 16384];
        let length = self.socket.read(&mut message).unwrap();
        message.truncate(length);
        if u16::from_ne_bytes([message[4], message[5]]) != ERROR {
            return Ok(message);
        }
        Err(-i32::from_ne_bytes(*message[16..].first_chunk().unwrap()))
    }

    /// Has the driver read its file; gives the errno that it failed with.
    fn reload(&mut self) -> i32 {
        self.send(RELOAD, &[]);
        self.receive().unwrap_err()
    }
}

/// Where there is a driver that reads a file.
fn radio() -> Option<Radio> {
    let radio = Path::new(FILE).exists().then(Radio::open).flatten();
    if radio.is_none() {
        eprintln!("not looked for: nothing here asks for {FILE}");
    }
    radio
}

/// Where it really is.
fn path() -> String {
    std::fs::canonicalize(FILE).unwrap().to_str().unwrap().to_owned()
}

#[test]
#[ignore = "root: loads LSM programs, which the lab's kernels take"]
fn firmware_is_told_of_with_its_file() {
    let Some(mut radio) = radio() else { return };
    let kind = EventType::FIRMWARE_LOAD;
    let Some(mut listener) = Listener::to(kind, "ringfence_kernel_load") else { return };
    let (record, failed) = listener.hear_one(|| radio.reload());
    assert_eq!(failed, libc::ENODATA, "it is no such file");
    assert_eq!(listener.text(&record, "file.path"), path());
    assert_eq!(listener.number(&record, "from"), 1);
    listener.door(DOOR);
}

#[test]
#[ignore = "root: loads BPF programs"]
fn firmware_is_denied_with_the_errno_of_the_rule() {
    let Some(mut radio) = radio() else { return };
    let condition = format!("file.path = {:?}", path());
    let mut reload = || radio.reload();
    doors_are_denied(EventType::FIRMWARE_LOAD, &condition, &mut [(DOOR, &mut reload)]);
}
