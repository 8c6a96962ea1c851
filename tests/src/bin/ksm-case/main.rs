// SPDX-License-Identifier: GPL-2.0

//! The behaviour tests of KSM, one per name.
//!
//! `ksm-case LIST` names them, one a line: name, lanes, memory, mode and description, separated
//! by tabs. A lane may say what its VM needs, by the names of the options of `tools/vm`:
//! `um,x86:numa=2:cpus=4`. `ksm-case NAME` runs one inside a VM and says what it does. It ends with 0 if the
//! case passed, with 77 and the reason on the last line if it cannot run there, and with
//! anything else if it failed.

mod case;
mod cases;
mod helpers;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use ksm_tests::{ksm, module, outcome};

use case::{Case, Mode, Options, Skip};

#[derive(Parser)]
#[command(about = "Behaviour tests of KSM, to be run as root inside a VM")]
struct Arguments {
    /// LIST, or the name of a case.
    name: String,

    #[command(flatten)]
    options: Options,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.name.as_str() {
        "LIST" => {
            list();
            Ok(())
        }
        // What a case runs in a process after `execve`.
        helpers::AFTER_EXEC => helpers::after_exec(),
        helpers::HOLDER => helpers::hold(),
        name => run(name, &arguments.options),
    };
    match skipped(&result) {
        Some(reason) => {
            println!("{reason}");
            ExitCode::from(outcome::EXIT_SKIP)
        }
        None => outcome::exit_code(result),
    }
}

fn list() {
    for case in cases::all() {
        println!(
            "{}\t{}\t{}\t{}\t{}",
            case.name, case.lanes, case.memory, case.mode, case.what
        );
    }
}

fn run(name: &str, options: &Options) -> Result<()> {
    let case = cases::all()
        .find(|case| case.name == name)
        .with_context(|| format!("there is no case {name}: see ksm-case LIST"))?;
    println!("{name}: {}", case.what);
    check_mode(case)?;
    (case.run)(options)?;
    println!("{name}: passed");
    Ok(())
}

/// Says clearly what is wrong if the kernel is not in the state that the case begins with.
fn check_mode(case: &Case) -> Result<()> {
    match case.mode {
        Mode::Loaded if !ksm::is_present() => {
            anyhow::bail!("{} is not there: is the module loaded?", ksm::DIRECTORY)
        }
        Mode::Unloaded if module::file().is_none() => {
            Err(Skip("this kernel has KSM built in: $KSM_RS_KO is not set".into()).into())
        }
        Mode::Unloaded if module::is_loaded()? => {
            anyhow::bail!("this case loads the module itself, but it is loaded already")
        }
        _ => Ok(()),
    }
}

/// Why a case could not be run here.
fn skipped(result: &Result<()>) -> Option<&str> {
    let Skip(reason) = result.as_ref().err()?.downcast_ref()?;
    Some(reason)
}
