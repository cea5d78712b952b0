// SPDX-License-Identifier: Apache-2.0
//! Where a client stands among the others.
//!
//! An altitude is a decimal number, written as a string because it has any precision: between two
//! of them there is always room for a third. The higher one is asked first, and its errno is the
//! one that a caller gets where several deny. It never decides whether a deny counts.

use std::cmp::Ordering;
use std::fmt;

/// The longest that is taken, in characters.
pub const ALTITUDE_MAX: usize = 64;

/// A decimal number above 0 and below 600000, without needless zeros.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Altitude {
    whole: String,
    /// What stands behind the point, without zeros at its end.
    fraction: String,
}

/// What products of an altitude are for. By convention: it tells a reader where to put the next
/// one, and gives no power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AltitudeClass {
    /// Below 100000: local scripts, trials and development.
    Local,
    /// From 100000: recorders, audit, inventory.
    Monitor,
    /// From 200000: detection and response by behaviour.
    Behaviour,
    /// From 300000: scanners of contents.
    Scanner,
    /// From 400000: allow-lists and application control.
    Control,
    /// From 500000: sandboxes and what confines a part of the host.
    Confinement,
}

/// Why a text is no altitude.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AltitudeError {
    /// See the text.
    #[error("is not a decimal number")]
    NotDecimal,
    /// See the text.
    #[error("is longer than {ALTITUDE_MAX} characters")]
    TooLong,
    /// See the text.
    #[error("is not above 0 and below 600000")]
    OutOfRange,
}

impl Altitude {
    /// Digits, and perhaps a point and more digits: `320500`, `320500.25`.
    ///
    /// # Errors
    ///
    /// If it is anything else, too long, or belongs to no [`AltitudeClass`].
    pub fn parse(text: &str) -> Result<Self, AltitudeError> {
        if text.len() > ALTITUDE_MAX {
            return Err(AltitudeError::TooLong);
        }
        let (whole, fraction) = match text.split_once('.') {
            Some((_, "")) => return Err(AltitudeError::NotDecimal),
            Some(parts) => parts,
            None => (text, ""),
        };
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(fraction) {
            return Err(AltitudeError::NotDecimal);
        }
        let whole = whole.trim_start_matches('0');
        let fraction = fraction.trim_end_matches('0');
        let zero = whole.is_empty() && fraction.is_empty();
        if zero || whole.len() > 6 || (whole.len() == 6 && whole >= "600000") {
            return Err(AltitudeError::OutOfRange);
        }
        Ok(Self { whole: whole.to_owned(), fraction: fraction.to_owned() })
    }

    /// What products of this altitude are for.
    #[must_use]
    pub fn class(&self) -> AltitudeClass {
        let hundred_thousands = if self.whole.len() == 6 { self.whole.as_bytes()[0] } else { b'0' };
        match hundred_thousands {
            b'1' => AltitudeClass::Monitor,
            b'2' => AltitudeClass::Behaviour,
            b'3' => AltitudeClass::Scanner,
            b'4' => AltitudeClass::Control,
            b'5' => AltitudeClass::Confinement,
            _ => AltitudeClass::Local,
        }
    }
}

impl Ord for Altitude {
    fn cmp(&self, other: &Self) -> Ordering {
        // Without needless zeros the longer whole part is the larger; fractions compare as text.
        let wholes = self.whole.len().cmp(&other.whole.len());
        wholes
            .then_with(|| self.whole.cmp(&other.whole))
            .then_with(|| self.fraction.cmp(&other.fraction))
    }
}

impl PartialOrd for Altitude {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Altitude {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.whole.is_empty() { "0" } else { &self.whole })?;
        if self.fraction.is_empty() { Ok(()) } else { write!(f, ".{}", self.fraction) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn altitude(text: &str) -> Altitude {
        Altitude::parse(text).expect("an altitude")
    }

    #[test]
    fn altitudes_are_ordered_as_numbers() {
        let rising = ["0.001", "0.5", "9", "10", "99999.9", "100000", "320500.09", "320500.1"];
        for pair in rising.windows(2) {
            assert!(altitude(pair[0]) < altitude(pair[1]), "{pair:?}");
        }
        assert!(altitude("320500.1") < altitude("320500.10000000000000000000000000001"));
    }

    #[test]
    fn needless_zeros_make_no_difference() {
        assert_eq!(altitude("0320500.250"), altitude("320500.25"));
        assert_eq!(altitude("7.0"), altitude("7"));
        assert_eq!(altitude("7.0").to_string(), "7");
        assert_eq!(altitude("00.50").to_string(), "0.5");
    }

    #[test]
    fn what_is_no_altitude_is_refused() {
        for text in ["", ".", "1.", ".5", "-1", "+1", "1e5", "1.2.3", " 1", "١"] {
            assert_eq!(Altitude::parse(text), Err(AltitudeError::NotDecimal), "{text}");
        }
        for text in ["0", "0.000", "600000", "1000000"] {
            assert_eq!(Altitude::parse(text), Err(AltitudeError::OutOfRange), "{text}");
        }
        assert_eq!(Altitude::parse(&"1".repeat(65)), Err(AltitudeError::TooLong));
    }

    #[test]
    fn each_class_begins_at_its_hundred_thousand() {
        assert_eq!(altitude("99999.99").class(), AltitudeClass::Local);
        assert_eq!(altitude("100000").class(), AltitudeClass::Monitor);
        assert_eq!(altitude("320500").class(), AltitudeClass::Scanner);
        assert_eq!(altitude("599999.9").class(), AltitudeClass::Confinement);
    }
}
