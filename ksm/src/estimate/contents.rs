// SPDX-License-Identifier: GPL-2.0

//! Pages in groups of equal content, and the frames that each group needs.

use super::Seen;

/// Pages of equal content.
pub struct Content<'a> {
    /// All of them, in the order of their frames.
    pub pages: &'a [Seen],
}

impl Content<'_> {
    /// The frames that hold the content now.
    pub fn frames(&self) -> u64 {
        let others = self
            .pages
            .windows(2)
            .filter(|pair| pair[0].frame != pair[1].frame);
        1 + others.count() as u64
    }

    /// The frames that hold the content once it is merged, if `limit` mappings can share one.
    pub fn frames_needed(&self, limit: u64) -> u64 {
        self.frames().min((self.pages.len() as u64).div_ceil(limit))
    }
}

/// All contents; sorts the pages.
pub fn contents(pages: &mut [Seen]) -> impl Iterator<Item = Content<'_>> {
    pages.sort_unstable();
    pages
        .chunk_by(|one, other| one.content == other.content)
        .map(|pages| Content { pages })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(content: u64, frame: u32) -> Seen {
        Seen::new(content, frame, 0, false)
    }

    #[test]
    fn a_frame_that_is_shared_already_counts_once() {
        let mut pages = [page(7, 1), page(9, 3), page(7, 2), page(7, 1)];
        let found: Vec<_> = contents(&mut pages)
            .map(|content| (content.pages.len(), content.frames()))
            .collect();
        assert_eq!(found, [(3, 2), (1, 1)]);
    }

    #[test]
    fn a_frame_is_shared_by_a_limited_number() {
        let mut pages: Vec<_> = (0..1000).map(|frame| page(7, frame)).collect();
        let content = contents(&mut pages).next().unwrap();
        assert_eq!(content.frames_needed(256), 4);
        assert_eq!(content.frames_needed(2), 500);
    }

    #[test]
    fn frames_shared_beyond_the_limit_are_not_parted() {
        let mut pages = [page(7, 1); 1000];
        assert_eq!(contents(&mut pages).next().unwrap().frames_needed(256), 1);
    }
}
