// SPDX-License-Identifier: Apache-2.0
//! Words of which a key takes one.

/// A type that a grant writes as one of a few words.
pub trait Choice: Copy + PartialEq + 'static {
    /// Each word and what it means.
    const CHOICES: &'static [(&'static str, Self)];

    /// What the word means.
    #[must_use]
    fn from_word(word: &str) -> Option<Self> {
        Self::CHOICES.iter().find(|(known, _)| *known == word).map(|(_, meaning)| *meaning)
    }

    /// The word for it.
    #[must_use]
    fn word(self) -> &'static str {
        Self::CHOICES.iter().find(|(_, meaning)| *meaning == self).map_or("", |(word, _)| word)
    }

    /// All words, as an error names them: `"allow", "deny"`.
    #[must_use]
    fn words() -> String {
        let quoted: Vec<_> = Self::CHOICES.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        quoted.join(", ")
    }
}
