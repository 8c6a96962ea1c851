// SPDX-License-Identifier: GPL-2.0

//! One of the processes whose memory merges.

use anyhow::Result;
use ksm_tests::{corpus::Corpus, pattern, peer::Link, region::Region, PAGE_SIZE};
use serde::{Deserialize, Serialize};

/// What a worker can be told to do.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub enum Order {
    /// Write to every third page of the common data; answers the number of pages.
    Write,
    /// Compare every page with its digest; answers the number of bytes that are not as they
    /// should be, a wrong page being wrong as a whole.
    Verify,
    /// End; there is no answer.
    End,
}

/// Every page whose number is a multiple of this is written to.
const WRITE_STEP: usize = 3;

type Digest = blake3::Hash;

/// A process's memory, and what it must hold.
struct Worker {
    common_pages: usize,
    region: Region,
    digests: Vec<Digest>,
}

/// Reads the corpus, tells the digest of every page, and follows orders.
pub fn run(
    link: &mut Link,
    corpus: &Corpus,
    common_pages: usize,
    private_pages: usize,
    seed: u64,
) -> Result<()> {
    let mut worker = Worker::fill(corpus, common_pages, private_pages, seed)?;
    link.send(worker.short_digests())?;
    loop {
        match link.receive()? {
            Order::Write => link.send(worker.write())?,
            Order::Verify => link.send(worker.lost_bytes())?,
            Order::End => return Ok(()),
        }
    }
}

impl Worker {
    fn fill(corpus: &Corpus, common: usize, private: usize, seed: u64) -> Result<Self> {
        let mut region = Region::new(common + private)?;
        let (shared, own) = region.bytes_mut().split_at_mut(common * PAGE_SIZE);
        corpus.read_into(shared)?;
        for (index, page) in own.chunks_exact_mut(PAGE_SIZE).enumerate() {
            page.copy_from_slice(&pattern::page(seed, index));
        }
        region.advise_mergeable()?;
        Ok(Self {
            common_pages: common,
            digests: page_digests(&region).collect(),
            region,
        })
    }

    /// The first eight bytes of each page's digest: enough to tell how many pages are equal.
    fn short_digests(&self) -> Vec<u64> {
        self.digests
            .iter()
            .map(|digest| {
                let (head, _) = digest.as_bytes().split_first_chunk().expect("32 bytes");
                u64::from_ne_bytes(*head)
            })
            .collect()
    }

    fn write(&mut self) -> u64 {
        let mut written = 0;
        for index in (0..self.common_pages).step_by(WRITE_STEP) {
            // What the page must be is computed apart from the page itself.
            let mut expected = self.region.page(index).to_vec();
            stamp(&mut expected, index);
            self.digests[index] = blake3::hash(&expected);
            stamp(self.region.page_mut(index), index);
            written += 1;
        }
        written
    }

    fn lost_bytes(&self) -> u64 {
        let wrong = page_digests(&self.region)
            .zip(&self.digests)
            .filter(|(found, expected)| found != *expected)
            .count();
        (wrong * PAGE_SIZE) as u64
    }
}

fn page_digests(region: &Region) -> impl Iterator<Item = Digest> + '_ {
    region.bytes().chunks_exact(PAGE_SIZE).map(blake3::hash)
}

/// Changes some bytes in the middle of a page.
fn stamp(page: &mut [u8], index: usize) {
    for (byte, mark) in page[1000..].iter_mut().zip((index as u64).to_ne_bytes()) {
        *byte ^= mark ^ 0xa5;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker() -> Worker {
        Worker::fill(&Corpus::of_pages(7).unwrap(), 7, 2, 1).unwrap()
    }

    #[test]
    fn own_writes_are_no_loss() {
        let mut worker = worker();
        assert_eq!(worker.lost_bytes(), 0);
        assert_eq!(worker.write(), 3);
        assert_eq!(worker.lost_bytes(), 0);
    }

    #[test]
    fn a_wrong_bit_is_a_lost_page() {
        let mut worker = worker();
        worker.region.page_mut(8)[4095] ^= 1;
        assert_eq!(worker.lost_bytes(), 4096);
    }
}
