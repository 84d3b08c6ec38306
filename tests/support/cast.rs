//! Who takes part in a scenario: some members and one who only watches, each in a process of its own.
#![allow(dead_code)]

use std::time::Duration;

use cluster_provisioning::ProviderDescriptor;

use crate::members::MemberProcess;

/// How long a start may take; many processes start at once on few cores.
const START: Duration = Duration::from_secs(30);

/// The members, in the order in which they were named, and the watcher last.
pub struct Cast {
    pub all: Vec<MemberProcess>,
    marks: Vec<usize>,
}

impl Cast {
    /// Members of these ids and a watcher, `w`, all with the same providers; returns when each sees all members.
    pub fn start(ids: &[&str], providers: &[ProviderDescriptor]) -> Self {
        Self::start_each(ids, |_| providers.to_vec())
    }

    /// The same, each with the providers that are its own.
    pub fn start_each(ids: &[&str], providers: impl Fn(&str) -> Vec<ProviderDescriptor>) -> Self {
        let mut all: Vec<_> = ids.iter().map(|id| MemberProcess::member(id, &providers(id))).collect();
        all.push(MemberProcess::watcher("w", &providers("w")));
        Self::of(all, ids)
    }

    /// These processes; returns when each sees these members.
    pub fn of(all: Vec<MemberProcess>, ids: &[&str]) -> Self {
        for process in &all {
            process.wait_started(START);
        }
        let mut cast = Self { all, marks: Vec::new() };
        cast.wait_members(ids, START);
        cast.wait_healthy(START);
        cast.mark();
        cast
    }

    /// The process of that name.
    pub fn get(&self, name: &str) -> &MemberProcess {
        self.all.iter().find(|process| process.name() == name).unwrap()
    }

    pub fn get_mut(&mut self, name: &str) -> &mut MemberProcess {
        self.all.iter_mut().find(|process| process.name() == name).unwrap()
    }

    /// Adds a process that starts later.
    pub fn add(&mut self, process: MemberProcess) {
        process.wait_started(START);
        self.marks.push(process.mark());
        self.all.push(process);
    }

    /// Takes a process out of the cast.
    pub fn remove(&mut self, name: &str) -> MemberProcess {
        let at = self.all.iter().position(|process| process.name() == name).unwrap();
        self.marks.remove(at);
        self.all.remove(at)
    }

    /// From here on it counts what they see.
    pub fn mark(&mut self) {
        self.marks = self.all.iter().map(MemberProcess::mark).collect();
    }

    pub fn mark_of(&self, name: &str) -> usize {
        self.marks[self.all.iter().position(|process| process.name() == name).unwrap()]
    }

    /// Waits until all of them see these members.
    pub fn wait_members(&self, ids: &[&str], within: Duration) {
        for process in &self.all {
            process.wait_members(ids, within);
        }
    }

    /// Waits until all providers of all of them are healthy.
    pub fn wait_healthy(&self, within: Duration) {
        for process in &self.all {
            process.wait_for("all healthy", within, |lines| {
                let mut health = std::collections::BTreeMap::new();
                for line in lines.iter().filter(|line| line.what == "health") {
                    health.insert(line.provider.as_str(), line.value == "healthy");
                }
                (!health.is_empty() && health.values().all(|healthy| *healthy)).then_some(())
            });
        }
    }

    /// Waits until each of them has been told since the mark that its data is not fresh.
    pub fn wait_not_healthy(&self, within: Duration) {
        for (process, mark) in self.all.iter().zip(&self.marks) {
            process
                .wait_line_since(*mark, "not healthy", within, |line| line.what == "health" && line.value != "healthy");
        }
    }

    /// Nobody left since the mark, whoever looks.
    pub fn assert_nobody_left(&self) {
        self.assert_left(&[]);
    }

    /// Exactly these left since the mark, as each of them saw it.
    pub fn assert_left(&self, ids: &[&str]) {
        for (process, mark) in self.all.iter().zip(&self.marks) {
            assert_eq!(process.who_left(*mark), ids, "as {} saw it", process.name());
        }
    }

    /// Ends all of them in good order, and checks what holds for everyone.
    pub fn finish(mut self) {
        for process in &self.all {
            process.check();
        }
        for process in &mut self.all {
            process.command("exit");
        }
        for process in &self.all {
            process.wait_line("stopped", START, |line| line.what == "stopped");
        }
    }
}
