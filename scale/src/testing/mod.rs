// SPDX-License-Identifier: GPL-2.0

//! What the module's KUnit suites use.

#[path = "../../../testing/fake_page.rs"]
pub(crate) mod fake_page;
#[path = "../../../testing/random.rs"]
pub(crate) mod random;
