// SPDX-License-Identifier: GPL-2.0

//! Loading and unloading the module.

use std::{
    env,
    ffi::CString,
    fs,
    fs::File,
    path::{Path, PathBuf},
};

use anyhow::{ensure, Context, Result};
use nix::{
    errno::Errno,
    kmod::{delete_module, finit_module, DeleteModuleFlags, ModuleInitFlags},
};

use crate::{ksm, procfs, wait};

/// The name that the kernel knows the module by.
pub const NAME: &str = "ksm_rs";

/// The module's file, as the VM runner names it; nothing if this kernel takes no module.
pub fn file() -> Option<PathBuf> {
    env::var_os("KSM_RS_KO")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
}

/// True if the module is loaded.
pub fn is_loaded() -> Result<bool> {
    Ok(size()?.is_some())
}

/// True if the kernel has a module of that name, or is loading it.
pub fn is_known(name: &str) -> Result<bool> {
    Ok(words_about(&all()?, name).is_some())
}

/// Bytes that the loaded module takes: code and data, not what it allocates.
pub fn size() -> Result<Option<usize>> {
    Ok(size_in(&all()?, NAME))
}

/// Where the loaded module lies; for root only.
pub fn address() -> Result<Option<u64>> {
    Ok(address_in(&all()?, NAME))
}

/// What the kernel says of all modules.
fn all() -> Result<String> {
    match fs::read_to_string("/proc/modules") {
        // A kernel without modules has no such file.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        other => other.context("cannot read /proc/modules"),
    }
}

/// The words about a module, after its name.
fn words_about<'a>(modules: &'a str, name: &str) -> Option<impl Iterator<Item = &'a str>> {
    modules.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == name).then_some(words)
    })
}

fn size_in(modules: &str, name: &str) -> Option<usize> {
    words_about(modules, name)?.next()?.parse().ok()
}

fn address_in(modules: &str, name: &str) -> Option<u64> {
    let word = words_about(modules, name)?.nth(4)?;
    u64::from_str_radix(word.strip_prefix("0x")?, 16).ok()
}

/// Loads the module.
pub fn load(path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    try_load(&file).with_context(|| format!("cannot load {}", path.display()))
}

/// Loads the module, with the parameters that the VM runner has for it, or says at once why not.
pub fn try_load(file: &File) -> Result<(), Errno> {
    let parameters = env::var("KSM_RS_PARAMETERS").unwrap_or_default();
    let parameters = CString::new(parameters).map_err(|_| Errno::EINVAL)?;
    finit_module(file, &parameters, ModuleInitFlags::empty())
}

/// Unloads the module, or says at once why not.
pub fn try_unload() -> Result<(), Errno> {
    delete_module(c"ksm_rs", DeleteModuleFlags::O_NONBLOCK)
}

/// Unloads the module.
pub fn unload() -> Result<()> {
    try_unload().context("cannot unload ksm_rs")
}

/// Makes sure that nothing of the module is left to see.
pub fn ensure_gone() -> Result<()> {
    ensure!(!is_loaded()?, "it is still in /proc/modules");
    ensure!(!ksm::is_present(), "{} is still there", ksm::DIRECTORY);
    // kthread_stop() waits for the end of the thread's function. The thread itself is in /proc
    // for a moment longer.
    wait::until("the thread ksmd to end", || {
        Ok(procfs::find_process("ksmd")?.is_none().then_some(()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_found_by_whole_name() {
        let modules = "ksm_rs_test 1 0 - Live 0x0\nksm_rs 4096 0 - Live 0x70899000 (O)\n";
        assert_eq!(size_in(modules, "ksm_rs"), Some(4096));
        assert_eq!(size_in(modules, "ksm"), None);
        assert_eq!(address_in(modules, "ksm_rs"), Some(0x7089_9000));
    }
}
