// SPDX-License-Identifier: GPL-2.0

//! Loading and unloading the module.

use std::{
    env, fs,
    fs::File,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    kmod::{delete_module, finit_module, DeleteModuleFlags, ModuleInitFlags},
};

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

/// Bytes that the loaded module takes: code and data, not what it allocates.
pub fn size() -> Result<Option<usize>> {
    let modules = match fs::read_to_string("/proc/modules") {
        // A kernel without modules has no such file.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.context("cannot read /proc/modules")?,
    };
    Ok(size_in(&modules, NAME))
}

fn size_in(modules: &str, name: &str) -> Option<usize> {
    modules.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == name).then(|| words.next()?.parse().ok())?
    })
}

/// Loads the module.
pub fn load(path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    finit_module(&file, c"", ModuleInitFlags::empty())
        .with_context(|| format!("cannot load {}", path.display()))
}

/// Unloads the module, or says at once why not.
pub fn try_unload() -> Result<(), Errno> {
    delete_module(c"ksm_rs", DeleteModuleFlags::O_NONBLOCK)
}

/// Unloads the module.
pub fn unload() -> Result<()> {
    try_unload().context("cannot unload ksm_rs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_found_by_whole_name() {
        let modules = "ksm_rs_test 1 0 - Live 0x0\nksm_rs 4096 0 - Live 0x0\n";
        assert_eq!(size_in(modules, "ksm_rs"), Some(4096));
        assert_eq!(size_in(modules, "ksm"), None);
    }
}
