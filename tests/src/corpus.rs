// SPDX-License-Identifier: GPL-2.0

//! Real data of this machine: whole pages out of its installed files.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{bail, Context, Result};

use crate::PAGE_SIZE;

/// Where programs and libraries are installed; searched in this order.
const ROOTS: [&str; 3] = ["/usr/lib", "/usr/bin", "/usr/share"];

/// Files whose leading whole pages add up to a wanted number of pages.
pub struct Corpus {
    files: Vec<(PathBuf, usize)>,
}

impl Corpus {
    /// Takes files in the order of their names until there are `pages` pages.
    pub fn of_pages(pages: usize) -> Result<Self> {
        let mut corpus = Self { files: Vec::new() };
        let mut missing = pages;
        for root in ROOTS {
            corpus.collect(Path::new(root), &mut missing);
        }
        if missing > 0 {
            bail!("this machine's files lack {missing} pages of the {pages} wanted");
        }
        Ok(corpus)
    }

    fn collect(&mut self, directory: &Path, missing: &mut usize) {
        // What cannot be read is left out: it is the same for everyone.
        let Ok(entries) = fs::read_dir(directory) else {
            return;
        };
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            if *missing == 0 {
                return;
            }
            match fs::symlink_metadata(&path) {
                Ok(metadata) if metadata.is_dir() => self.collect(&path, missing),
                Ok(metadata) if metadata.is_file() => {
                    let pages = (metadata.len() as usize / PAGE_SIZE).min(*missing);
                    if pages > 0 && File::open(&path).is_ok() {
                        *missing -= pages;
                        self.files.push((path, pages));
                    }
                }
                _ => {}
            }
        }
    }

    /// Number of files.
    pub fn files(&self) -> usize {
        self.files.len()
    }

    /// Reads all of it into `memory`, which must have exactly its size.
    pub fn read_into(&self, mut memory: &mut [u8]) -> Result<()> {
        for (path, pages) in &self.files {
            let (head, rest) = memory
                .split_at_mut_checked(pages * PAGE_SIZE)
                .context("more data than memory")?;
            File::open(path)
                .and_then(|mut file| file.read_exact(head))
                .with_context(|| format!("cannot read {}", path.display()))?;
            memory = rest;
        }
        if !memory.is_empty() {
            bail!("more memory than data");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_is_the_same_each_time() {
        let mut first = vec![0; 64 * PAGE_SIZE];
        let mut second = vec![1; 64 * PAGE_SIZE];
        Corpus::of_pages(64).unwrap().read_into(&mut first).unwrap();
        Corpus::of_pages(64)
            .unwrap()
            .read_into(&mut second)
            .unwrap();
        assert!(first == second);
    }

    #[test]
    fn sizes_must_agree() {
        let corpus = Corpus::of_pages(4).unwrap();
        assert!(corpus.read_into(&mut [0; 3 * PAGE_SIZE]).is_err());
        assert!(corpus.read_into(&mut [0; 5 * PAGE_SIZE]).is_err());
    }
}
