// SPDX-License-Identifier: Apache-2.0
//! As many digests as one collection can have, sent by a client while another one asks for something.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use serde_json::{Value, json};

use super::{Client, Daemon};

const DIGESTS: u64 = 1_000_000;
/// In one message, which is less than a megabyte then.
const PART: u64 = 12_500;

/// Sends them in a session, and waits for no answer to the last message.
pub(crate) fn send(client: &mut Client) {
    let part = |digests: Vec<String>, continues: bool| json!({ "name": "bad", "digests": digests, "continues": continues });
    for from in (0..DIGESTS).step_by(PART as usize) {
        // Spread as digests are.
        let spread = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let digests =
            (from..from + PART).map(|number| format!("{:016x}", spread(number)).repeat(4));
        let sent = client.ok("ReplaceCollection", part(digests.collect(), true));
        assert_eq!(sent["digests"], from + PART);
    }
    let last = part(Vec::new(), false);
    client.send(&json!({ "method": "io.ringfence.Control.ReplaceCollection", "parameters": last }));
}

/// Sends them; the other is answered again and again while they are made ready. Gives how often.
pub(crate) fn replace_a_collection(daemon: &Daemon) -> u32 {
    let mut client = daemon.session();
    let mut other = daemon.connect();
    send(&mut client);
    let is_there = |client: &Client| {
        let now = rustix::time::Timespec::try_from(Duration::ZERO).unwrap();
        poll(&mut [PollFd::new(&client.stream, PollFlags::IN)], Some(&now)).unwrap() == 1
    };
    let mut answered = 0;
    while !is_there(&client) {
        other.ok("GetVersion", json!({}));
        answered += 1;
    }
    let reply: Value = client.receive().unwrap();
    assert_eq!(reply["parameters"]["digests"], DIGESTS, "{reply}");
    let rules = client.ok("GetRules", json!({}));
    let expected = json!([{ "name": "bad", "digests": DIGESTS }]);
    assert_eq!(rules["clients"][0]["collections"], expected);
    answered
}
