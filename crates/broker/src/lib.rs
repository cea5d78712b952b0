// SPDX-License-Identifier: Apache-2.0
//! Who may ask, who is asked, and what comes of it.

pub mod event;
pub mod grant;
