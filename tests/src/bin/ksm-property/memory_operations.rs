// SPDX-License-Identifier: GPL-2.0

//! What a process does to one of its areas, or somebody else does to it.

use std::path::Path;

use anyhow::Result;
use ksm_tests::{numa, region::HUGE_PAGES, PAGE_SIZE};

use crate::{
    content::Content,
    model::Area,
    operation::{Operation, Target},
    stage::{Member, Stage},
    worker::Request,
};

const MAX_AREAS: usize = 6;

/// A process may have that many pages before it gets huge ones.
const MAX_PAGES_BESIDE_HUGE: usize = HUGE_PAGES;

impl Stage<'_> {
    /// False if this is no operation on an area.
    pub fn apply_to_memory(&mut self, operation: &Operation) -> Result<bool> {
        match *operation {
            Operation::Map {
                process,
                pages,
                content,
                advised,
            } => {
                self.inheritance.unadvised |= !advised;
                self.map(process, pages.into(), content, advised)?;
            }
            Operation::MapHuge { process, content } => self.map_huge(process, content)?,
            Operation::MergeAny { process, on } => {
                // Either way there is memory now, a heap or a stack, that has advice in one process
                // and none in its relatives.
                self.inheritance.unadvised = true;
                let process = &mut self.member(process)?.process;
                process.ask(&Request::MergeAny { on })?;
            }
            Operation::Advise { on, mergeable } => {
                self.inheritance.unadvised |= !mergeable;
                self.ask(on, |area| Request::Advise { area, mergeable })?;
            }
            Operation::WritePage { to, page, content } => self.write_page(to, page, content)?,
            Operation::WriteBytes { to, at, ref bytes } => self.write_bytes(to, at, bytes)?,
            Operation::WriteFromOutside { to, at, ref bytes } => {
                self.write_from_outside(to, at, bytes)?;
            }
            Operation::Move(what) => self.ask(what, |area| Request::Move { area })?,
            Operation::Resize { what, pages } => self.resize(what, pages.into())?,
            Operation::Split { what, at } => self.split(what, at)?,
            Operation::Unmap(what) => self.unmap(what)?,
            Operation::Discard(what) => self.discard(what)?,
            Operation::Collapse(what) => self.ask(what, |area| Request::Collapse { area })?,
            Operation::PageOut(what) => self.ask(what, |area| Request::PageOut { area })?,
            Operation::MoveToNode { what, node } if numa::has_node(1) => {
                let node = node.into();
                self.ask(what, |area| Request::MoveToNode { area, node })?;
            }
            Operation::Protect { what, readable } => {
                self.during_scan(what, |area| Request::Protect { area, readable })?;
            }
            Operation::HoldInPipe(what) => {
                self.during_scan(what, |area| Request::HoldInPipe { area })?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Asks for something that changes no content.
    fn ask(&mut self, target: Target, request: impl FnOnce(u32) -> Request) -> Result<()> {
        if let Some((process, area)) = self.find(target)? {
            process.ask(&request(area.id))?;
        }
        Ok(())
    }

    /// The same, with a full scan in the middle.
    fn during_scan(&mut self, target: Target, request: impl FnOnce(u32) -> Request) -> Result<()> {
        let Some((_, area)) = self.find(target)? else {
            return Ok(());
        };
        let request = request(area.id);
        let index = usize::from(target.process) % self.members.len();
        // Out of the list for a moment, so that the scanner can be asked meanwhile.
        let mut member = self.members.swap_remove(index);
        let result = member.process.ask_during(&request, || self.scans(1));
        self.members.push(member);
        let last = self.members.len() - 1;
        self.members.swap(index, last);
        result
    }

    fn map(&mut self, process: u8, pages: usize, content: Content, advised: bool) -> Result<()> {
        if self.member(process)?.areas.len() >= MAX_AREAS {
            return Ok(());
        }
        let area = Area::new(self.new_area_id(), content.pages(pages));
        self.machine.board.show(area.bytes())?;
        let Member { process, areas, .. } = self.member(process)?;
        process.ask(&Request::Map {
            area: area.id,
            pages,
        })?;
        process.ask(&Request::Write {
            area: area.id,
            at: 0,
            length: area.bytes().len(),
        })?;
        if advised {
            process.ask(&Request::Advise {
                area: area.id,
                mergeable: true,
            })?;
        }
        areas.push(area);
        Ok(())
    }

    fn map_huge(&mut self, process: u8, content: Content) -> Result<()> {
        let areas = &self.member(process)?.areas;
        let pages: usize = areas.iter().map(Area::pages).sum();
        if areas.len() >= MAX_AREAS || pages > MAX_PAGES_BESIDE_HUGE || !has_huge_pages() {
            return Ok(());
        }
        let area = Area::new(self.new_area_id(), content.pages(HUGE_PAGES));
        self.machine.board.show(area.bytes())?;
        let Member { process, areas, .. } = self.member(process)?;
        process.ask(&Request::MapHuge {
            area: area.id,
            pages: HUGE_PAGES,
        })?;
        process.ask(&Request::Advise {
            area: area.id,
            mergeable: true,
        })?;
        areas.push(area);
        Ok(())
    }

    fn write_page(&mut self, to: Target, page: u8, content: Content) -> Result<()> {
        let Some((_, area)) = self.find(to)? else {
            return Ok(());
        };
        let page = usize::from(page) % area.pages();
        self.write(to, page * PAGE_SIZE, &content.page(page))
    }

    fn write_bytes(&mut self, to: Target, at: u16, bytes: &[u8]) -> Result<()> {
        match self.find(to)? {
            Some((_, area)) => {
                let at = place(area, at, bytes);
                self.write(to, at, bytes)
            }
            None => Ok(()),
        }
    }

    fn write(&mut self, to: Target, at: usize, bytes: &[u8]) -> Result<()> {
        self.machine.board.show(bytes)?;
        if let Some((process, area)) = self.find(to)? {
            area.write(at, bytes);
            process.ask(&Request::Write {
                area: area.id,
                at,
                length: bytes.len(),
            })?;
        }
        Ok(())
    }

    fn write_from_outside(&mut self, to: Target, at: u16, bytes: &[u8]) -> Result<()> {
        if let Some((process, area)) = self.find(to)? {
            let at = place(area, at, bytes);
            let address = process.ask(&Request::Address { area: area.id })?;
            process.write_memory(address + at, bytes)?;
            area.write(at, bytes);
        }
        Ok(())
    }

    fn resize(&mut self, what: Target, pages: usize) -> Result<()> {
        if let Some((process, area)) = self.find(what)? {
            process.ask(&Request::Resize {
                area: area.id,
                pages,
            })?;
            area.resize(pages);
        }
        Ok(())
    }

    fn split(&mut self, what: Target, at: u8) -> Result<()> {
        let id = self.new_area_id();
        let Member { process, areas, .. } = self.member(what.process)?;
        if areas.is_empty() || areas.len() >= MAX_AREAS {
            return Ok(());
        }
        let index = usize::from(what.area) % areas.len();
        let area = &mut areas[index];
        let Some(places) = area.pages().checked_sub(1).filter(|&places| places > 0) else {
            return Ok(());
        };
        let at = 1 + usize::from(at) % places;
        process.ask(&Request::Split {
            area: area.id,
            at,
            rest: id,
        })?;
        let rest = area.split_off(at, id);
        areas.push(rest);
        Ok(())
    }

    fn unmap(&mut self, what: Target) -> Result<()> {
        let Member { process, areas, .. } = self.member(what.process)?;
        if !areas.is_empty() {
            let index = usize::from(what.area) % areas.len();
            let area = areas.swap_remove(index);
            process.ask(&Request::Unmap { area: area.id })?;
        }
        Ok(())
    }

    fn discard(&mut self, what: Target) -> Result<()> {
        if let Some((process, area)) = self.find(what)? {
            process.ask(&Request::Discard { area: area.id })?;
            area.discard();
        }
        Ok(())
    }
}

/// Where bytes can be written: not beyond the end.
fn place(area: &Area, at: u16, bytes: &[u8]) -> usize {
    usize::from(at) % (area.bytes().len() - bytes.len() + 1)
}

fn has_huge_pages() -> bool {
    Path::new("/sys/kernel/mm/transparent_hugepage").exists()
}
