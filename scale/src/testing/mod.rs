// SPDX-License-Identifier: GPL-2.0

//! Fixtures of the module's KUnit suites.

#[path = "../../../testing/fake_page.rs"]
pub(crate) mod fake_page;
#[path = "../../../testing/random.rs"]
pub(crate) mod random;
