// SPDX-License-Identifier: GPL-2.0

//! On which NUMA node memory lies, and moving it.

use std::{ffi::c_void, path::Path, ptr};

use anyhow::{ensure, Context, Result};
use nix::errno::Errno;

use crate::region::Region;

/// Moves pages that other processes map too; root only.
const MPOL_MF_MOVE_ALL: i32 = 1 << 2;

/// True if the kernel has this node.
pub fn has_node(node: u32) -> bool {
    Path::new(&format!("/sys/devices/system/node/node{node}")).exists()
}

/// Lets new pages of the region come from `node` alone.
pub fn bind(region: &Region, node: u32) -> Result<()> {
    let mask: u64 = 1 << node;
    // SAFETY: The region is ours, and a policy changes none of its contents. The mask is one word
    // of which the kernel reads all but the last bit.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_mbind,
            region.address(),
            region.len(),
            libc::MPOL_BIND,
            &raw const mask,
            u64::BITS as usize,
            0,
        )
    })
    .map(drop)
    .context("mbind")
}

/// From where the calling thread has new pages, where a region does not say that itself.
pub enum Policy {
    /// From wherever it runs.
    Default,
    /// From this node alone.
    Bind(u32),
    /// From nodes 0 and 1 in turns.
    Interleave,
}

/// Sets the policy of the calling thread.
pub fn set_policy(policy: &Policy) -> Result<()> {
    let (mode, mask) = match policy {
        Policy::Default => (libc::MPOL_DEFAULT, 0),
        Policy::Bind(node) => (libc::MPOL_BIND, 1u64 << node),
        Policy::Interleave => (libc::MPOL_INTERLEAVE, 0b11),
    };
    // SAFETY: A policy changes no memory that there is. The mask is one word of which the kernel
    // reads all but the last bit.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_set_mempolicy,
            mode,
            &raw const mask,
            u64::BITS as usize,
        )
    })
    .map(drop)
    .context("set_mempolicy")
}

/// What `move_pages` says of each page: a node, or a negative error.
fn move_pages(region: &Region, nodes: Option<&[i32]>, flags: i32) -> Result<Vec<i32>> {
    let pages: Vec<*mut c_void> = (0..region.pages())
        .map(|index| region.page_address(index) as *mut c_void)
        .collect();
    // Not every page gets one when some cannot be moved.
    let mut status = vec![i32::MIN; pages.len()];
    // SAFETY: All three arrays have as many elements as is said. Moving pages changes none of
    // their contents.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            0,
            pages.len(),
            pages.as_ptr(),
            nodes.map_or(ptr::null(), <[i32]>::as_ptr),
            status.as_mut_ptr(),
            flags,
        )
    })
    .context("move_pages")?;
    Ok(status)
}

/// The node that each page lies on.
pub fn nodes(region: &Region) -> Result<Vec<i32>> {
    move_pages(region, None, 0)
}

/// Moves all pages to `node`, even those that others share; gives the number that have come from
/// elsewhere.
pub fn move_to(region: &Region, node: u32) -> Result<usize> {
    let node = node as i32;
    let before = nodes(region)?;
    move_pages(region, Some(&vec![node; region.pages()]), MPOL_MF_MOVE_ALL)?;
    let after = nodes(region)?;
    let moves = before.iter().zip(after);
    Ok(moves
        .filter(|(before, after)| **before != node && *after == node)
        .count())
}

/// Fails unless all pages lie on `node`.
pub fn ensure_on(region: &Region, node: u32) -> Result<()> {
    let found = nodes(region)?;
    ensure!(
        found.iter().all(|&now| now == node as i32),
        "pages are on nodes {found:?}, not on {node}"
    );
    Ok(())
}
