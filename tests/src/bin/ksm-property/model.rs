// SPDX-License-Identifier: GPL-2.0

//! What every byte of every process must be.
//!
//! This knows nothing of KSM: to merge pages, and to part them, must change nothing.

use ksm_tests::PAGE_SIZE;

/// The name of an area; a child's areas are called like its parent's.
pub type AreaId = u32;

/// Some pages of a process, and what they must hold.
#[derive(Clone)]
pub struct Area {
    pub id: AreaId,
    bytes: Vec<u8>,
}

impl Area {
    pub fn new(id: AreaId, bytes: Vec<u8>) -> Self {
        assert_eq!(bytes.len() % PAGE_SIZE, 0);
        Self { id, bytes }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn pages(&self) -> usize {
        self.bytes.len() / PAGE_SIZE
    }

    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..][..bytes.len()].copy_from_slice(bytes);
    }

    /// What is new reads as zero.
    pub fn resize(&mut self, pages: usize) {
        self.bytes.resize(pages * PAGE_SIZE, 0);
    }

    pub fn discard(&mut self) {
        self.bytes.fill(0);
    }

    /// Takes the pages from `at` on out of it.
    pub fn split_off(&mut self, at: usize, id: AreaId) -> Self {
        Self::new(id, self.bytes.split_off(at * PAGE_SIZE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_split_by_pages() {
        let mut area = Area::new(1, vec![0; 3 * PAGE_SIZE]);
        area.write(PAGE_SIZE, &[7]);
        let rest = area.split_off(1, 2);
        assert_eq!((area.pages(), rest.pages()), (1, 2));
        assert_eq!((area.bytes()[0], rest.bytes()[0]), (0, 7));
    }

    #[test]
    fn what_grows_and_what_is_discarded_is_zero() {
        let mut area = Area::new(1, vec![7; PAGE_SIZE]);
        area.resize(2);
        assert_eq!(area.bytes()[PAGE_SIZE - 1..][..2], [7, 0]);
        area.discard();
        assert!(area.bytes().iter().all(|&byte| byte == 0));
    }
}
