// SPDX-License-Identifier: GPL-2.0

//! Runs a sequence of operations on real processes and on the model, and compares the two.

use anyhow::{ensure, Context, Result};
use ksm_tests::{
    folio_size::{self, HUGE_PAGE_KIB},
    kernel_log::KernelLog,
    ksm::{self, Run, Scanner},
    pattern, wait,
};
use nix::unistd::Pid;

use crate::{
    fleet::{self, Process},
    invariants,
    machine::Machine,
    model::{Area, AreaId},
    operation::{Operation, State, Target},
    tenancy::Rule,
    worker::Request,
};

const MAX_PROCESSES: usize = 5;

/// A process, and what its memory must be.
pub struct Member {
    pub process: Process,
    pub areas: Vec<Area>,
    /// 0 unless somebody has marked it, or one that it comes from.
    pub domain: u64,
}

/// What a sequence works on.
pub struct Stage<'a> {
    pub machine: &'a mut Machine,
    pub members: Vec<Member>,
    pub scanner: Scanner,
    pub inheritance: Inheritance,
    /// Which domains count.
    pub rule: Rule,
    /// Those that were told to end, or killed, and may take their time.
    ended: Vec<Pid>,
    log: KernelLog,
    state: State,
    is_unmerged: bool,
    most_sharing: u64,
    next_area: AreaId,
}

/// Waits for `check` to succeed. The last reference to an address space may be one that `ksmd` has left
/// to a work item: its pages go only then, and `ksmd` removes their nodes after that.
fn eventually(what: &str, check: impl Fn() -> Result<()>) -> Result<()> {
    wait::until(what, || Ok(check().ok())).or_else(|_| check())
}

impl<'a> Stage<'a> {
    /// Nothing, or the reason why there can be no more sequences in this kernel.
    pub fn new(machine: &'a mut Machine) -> Result<Self> {
        let log = KernelLog::from_now()?;
        let scanner = Scanner::prepare()?;
        if folio_size::is_there(HUGE_PAGE_KIB) {
            folio_size::use_only(HUGE_PAGE_KIB)?;
        }
        let mut stage = Self {
            machine,
            members: Vec::new(),
            scanner,
            inheritance: Inheritance::default(),
            rule: Rule::Marked,
            ended: Vec::new(),
            log,
            state: State::Stop,
            is_unmerged: true,
            most_sharing: 0,
            next_area: 0,
        };
        stage.check_unmerged()?;
        stage.set_state(State::Merge)?;
        Ok(stage)
    }

    /// Runs a whole sequence; gives the largest number of pages that were saved.
    pub fn run(mut self, sequence: &[Operation]) -> Result<u64> {
        for (index, operation) in sequence.iter().enumerate() {
            self.apply(operation)
                .and_then(|()| self.check())
                .with_context(|| format!("operation {index}, {operation:?}"))?;
        }
        self.finish().context("at the end")
    }

    fn apply(&mut self, operation: &Operation) -> Result<()> {
        match *operation {
            Operation::Start => self.start(),
            Operation::Fork { process } => self.fork(process),
            Operation::Exit { process, killed } => self.exit(process, killed),
            Operation::Verify { process } => self.verify(process),
            Operation::VerifyFromOutside { process } => self.verify_from_outside(process),
            Operation::Domain { process, to } => self.move_to_domain(process, to),
            Operation::DomainRule(rule) => self.set_domain_rule(rule),
            Operation::Hammer {
                area,
                page,
                times,
                meanwhile,
            } => self.hammer(area, page, times, meanwhile),
            Operation::Run(state) => self.set_state(state),
            _ if self.apply_to_memory(operation)? => Ok(()),
            _ => self.apply_to_kernel(operation),
        }
    }

    /// What can be seen at any moment without touching memory.
    fn check(&mut self) -> Result<()> {
        self.most_sharing = self.most_sharing.max(ksm::counters()?.sharing);
        invariants::check_counters()?;
        self.check_domains()?;
        self.members
            .iter()
            .try_for_each(|member| invariants::check_process(member.process.pid()))
    }

    /// All bytes are right, are still right when nothing is merged any more, and nothing is left.
    fn finish(mut self) -> Result<u64> {
        self.verify_all()?;
        self.set_state(State::Unmerge)?;
        self.verify_all()?;
        self.end_all()?;
        self.inheritance = Inheritance::default();
        self.set_state(State::Unmerge)?;
        let ancestors = self.machine.fleet.ancestors();
        eventually("the end of KSM pages", || {
            invariants::check_no_ksm_pages(&ancestors)
        })?;
        self.log.check()?;
        Ok(self.most_sharing)
    }

    /// Sets `run`.
    pub fn set_state(&mut self, state: State) -> Result<()> {
        if state == self.state {
            // A second run=2 may be taken for done.
            ksm::set_run(Run::Stop)?;
        }
        ksm::set_run(state.into())?;
        self.state = state;
        match state {
            State::Stop => Ok(()),
            State::Merge => {
                self.is_unmerged = false;
                Ok(())
            }
            State::Unmerge => {
                self.is_unmerged = true;
                self.check_unmerged()
            }
        }
    }

    fn check_unmerged(&self) -> Result<()> {
        invariants::check_unmerged()?;
        for Member { process, .. } in &self.members {
            invariants::check_process_unmerged(process.pid())?;
        }
        if self.has_no_ksm_page()? {
            eventually("the count of nodes", invariants::check_no_nodes)?;
        }
        if !self.ended.is_empty() {
            // A process that is about to end takes its zero pages off the count only then.
            return Ok(());
        }
        eventually("the count of zero pages", invariants::check_no_zero_pages)
    }

    /// There was no scan since run=2, and that has found all KSM pages.
    pub fn has_no_ksm_page(&self) -> Result<bool> {
        if !self.is_unmerged || !self.ended.is_empty() || self.inheritance.may_hide_pages() {
            return Ok(false);
        }
        let ancestors = self.machine.fleet.ancestors();
        Ok(!invariants::have_ksm_pages(&ancestors)?)
    }

    /// Waits for full scans, if there are any.
    pub fn scans(&self, count: u8) -> Result<()> {
        match self.state {
            State::Merge => self.scanner.scans(count.into()),
            State::Stop | State::Unmerge => Ok(()),
        }
    }

    /// A name that no area had before.
    pub fn new_area_id(&mut self) -> AreaId {
        self.next_area += 1;
        self.next_area
    }

    fn has_room(&self) -> bool {
        self.members.len() < MAX_PROCESSES
    }

    fn start(&mut self) -> Result<()> {
        if self.has_room() {
            let process = self.machine.fleet.start()?;
            self.members.push(Member {
                process,
                areas: Vec::new(),
                domain: 0,
            });
        }
        Ok(())
    }

    /// The member with that number; a new one if there is none at all.
    pub fn member(&mut self, number: u8) -> Result<&mut Member> {
        if self.members.is_empty() {
            self.start()?;
        }
        let index = usize::from(number) % self.members.len();
        Ok(&mut self.members[index])
    }

    /// The process and the area that are meant, if it has any.
    pub fn find(&mut self, target: Target) -> Result<Option<(&mut Process, &mut Area)>> {
        let Member { process, areas, .. } = self.member(target.process)?;
        if areas.is_empty() {
            return Ok(None);
        }
        let index = usize::from(target.area) % areas.len();
        Ok(Some((process, &mut areas[index])))
    }

    fn fork(&mut self, process: u8) -> Result<()> {
        if !self.has_room() {
            return Ok(());
        }
        self.inheritance.forked = true;
        self.member(process)?;
        let index = usize::from(process) % self.members.len();
        let parent = &mut self.members[index];
        let child = Member {
            process: self.machine.fleet.fork(&mut parent.process)?,
            areas: parent.areas.clone(),
            domain: parent.domain,
        };
        self.members.push(child);
        Ok(())
    }

    fn exit(&mut self, process: u8, killed: bool) -> Result<()> {
        if self.members.is_empty() {
            return Ok(());
        }
        let index = usize::from(process) % self.members.len();
        let mut member = self.members.swap_remove(index);
        if !killed {
            member.process.ask(&Request::Exit)?;
        }
        self.ended.push(member.process.pid());
        Ok(())
    }

    fn end_all(&mut self) -> Result<()> {
        let members = self.members.drain(..);
        self.ended
            .extend(members.map(|member| member.process.pid()));
        self.await_ends()
    }

    /// Waits until those that were told to end are gone, with all their memory.
    pub fn await_ends(&mut self) -> Result<()> {
        fleet::await_ends(&self.ended)?;
        self.ended.clear();
        Ok(())
    }

    fn verify_all(&mut self) -> Result<()> {
        let Self {
            machine, members, ..
        } = self;
        members
            .iter_mut()
            .try_for_each(|member| member.verify(machine))
    }

    fn verify(&mut self, process: u8) -> Result<()> {
        self.member(process)?;
        let Self {
            machine, members, ..
        } = self;
        let index = usize::from(process) % members.len();
        members[index].verify(machine)
    }

    fn verify_from_outside(&mut self, process: u8) -> Result<()> {
        let Member { process, areas, .. } = self.member(process)?;
        for area in areas {
            let address = process.ask(&Request::Address { area: area.id })?;
            let found = process.read_memory(address, area.bytes().len())?;
            let difference = pattern::first_difference(&found, area.bytes());
            ensure!(
                difference.is_none(),
                "DATA LOST: area {} from outside, from byte {difference:?} on",
                area.id
            );
        }
        Ok(())
    }

    /// All write at once, and `run` changes while they do.
    fn hammer(&mut self, area: u8, page: u8, times: u8, meanwhile: State) -> Result<()> {
        let mut busy = Vec::new();
        for (index, Member { process, areas, .. }) in self.members.iter_mut().enumerate() {
            if areas.is_empty() {
                continue;
            }
            let number = usize::from(area) % areas.len();
            let area = &mut areas[number];
            let page = usize::from(page) % area.pages();
            process.tell(&Request::Hammer {
                area: area.id,
                page,
                times,
            })?;
            if let Some(last) = times.checked_sub(1) {
                area.write(page * ksm_tests::PAGE_SIZE, &[last]);
            }
            busy.push(index);
        }
        ksm::set_run(meanwhile.into())?;
        for index in busy {
            self.members[index].process.answer()?;
        }
        self.set_state(meanwhile)
    }
}

impl Member {
    fn verify(&mut self, machine: &Machine) -> Result<()> {
        for area in &self.areas {
            machine.board.show(area.bytes())?;
            self.process
                .ask(&Request::Verify { area: area.id })
                .with_context(|| format!("area {}", area.id))?;
        }
        Ok(())
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        // What is still there after a failure must not disturb the next sequence.
        let _ = self.end_all();
    }
}

/// Whether run=2 may miss a KSM page, with any KSM.
///
/// After a fork parent and child map the same page. When the one's becomes a KSM page, the other
/// maps a KSM page without having been asked, and keeps it over run=2 if it has no advice there.
#[derive(Default)]
pub struct Inheritance {
    pub forked: bool,
    /// There is, or was, memory without advice.
    pub unadvised: bool,
}

impl Inheritance {
    fn may_hide_pages(&self) -> bool {
        self.forked && self.unadvised
    }
}
