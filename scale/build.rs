// SPDX-License-Identifier: GPL-2.0

//! Compiles the module's sources as a kernel with KUnit does, so that their suites are there.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(CONFIG_KUNIT, values(\"y\"))");
    println!("cargo::rustc-check-cfg=cfg(CONFIG_NUMA)");
    println!("cargo::rustc-cfg=CONFIG_KUNIT=\"y\"");
    println!("cargo::rerun-if-changed=build.rs");
}
