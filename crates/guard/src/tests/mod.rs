// SPDX-License-Identifier: Apache-2.0
//! Tests of the parts together, on a kernel that they make up.

mod announcements;
mod encodings;
mod explanations;
mod findings;
mod keys;
mod sealing;
mod synthetic;
mod watching;
