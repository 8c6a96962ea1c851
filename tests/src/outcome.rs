// SPDX-License-Identifier: GPL-2.0

//! How a program ends.

use std::process::ExitCode;

use anyhow::Result;

/// The exit status by which a test says that it cannot run here.
pub const EXIT_SKIP: u8 = 77;

/// Success, or failure after saying why on a line that begins with `FAILED`.
pub fn exit_code(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}
