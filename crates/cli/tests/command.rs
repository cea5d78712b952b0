// SPDX-License-Identifier: Apache-2.0
//! What the command says where no root is needed: help, wrong usage, files that are no kernel.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[test]
fn help_usage_and_errors_read_as_written() {
    trycmd::TestCases::new().case("tests/command/*.toml").case("tests/command/*.trycmd");
}
