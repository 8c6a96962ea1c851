// SPDX-License-Identifier: GPL-2.0

//! The kernel's log: standard error.

/// Logs an error.
#[macro_export]
macro_rules! pr_err (
    ($($arguments:tt)*) => (eprint!($($arguments)*))
);

/// Logs a warning.
#[macro_export]
macro_rules! pr_warn (
    ($($arguments:tt)*) => (eprint!($($arguments)*))
);

/// Logs a warning once.
#[macro_export]
macro_rules! pr_warn_once (
    ($($arguments:tt)*) => ({
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| eprint!($($arguments)*));
    })
);
