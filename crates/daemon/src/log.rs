// SPDX-License-Identifier: Apache-2.0
//! Lines for the administrator, on standard error.
//!
//! What a client can cause over and over is said a few times a minute only; how often it was held
//! back is said with the next.

use std::fmt::Display;
use std::io::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Lines within [`WINDOW`] that clients can cause.
const LINES: u32 = 20;
const WINDOW: Duration = Duration::from_secs(60);

static CAUSED: Mutex<Option<Window>> = Mutex::new(None);

struct Window {
    began: Instant,
    lines: u32,
    held_back: u32,
}

/// Something happened that the administrator wants to know.
pub fn note(what: &dyn Display) {
    write(what);
}

/// Something failed that should not.
pub fn error(what: &dyn Display) {
    caused(&format_args!("error: {what}"));
}

/// Something that a client did.
pub fn caused(what: &dyn Display) {
    // A panic elsewhere is no reason to be silent.
    let mut window = CAUSED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let now = Instant::now();
    let fresh = Window { began: now, lines: 0, held_back: 0 };
    let current = window.get_or_insert(fresh);
    if now.duration_since(current.began) >= WINDOW {
        if current.held_back > 0 {
            write(&format_args!("{} more lines about clients were held back", current.held_back));
        }
        *current = Window { began: now, lines: 0, held_back: 0 };
    }
    if current.lines >= LINES {
        current.held_back += 1;
        return;
    }
    current.lines += 1;
    write(what);
}

fn write(what: &dyn Display) {
    // A client chooses some of the words: none of them ends the line or paints the terminal.
    let visible = |c: char| if c.is_control() { '?' } else { c };
    let line: String = what.to_string().chars().map(visible).collect();
    // At once, so that lines of threads do not mix. Nobody is left to be told when standard error is
    // gone.
    let _ = std::io::stderr().write_all(format!("ringfenced: {line}\n").as_bytes());
}
