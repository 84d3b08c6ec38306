//! The probe's rules: when it asks, what its answer shows, and how the watch goes on by it after an error.
//!
//! While all is well it asks once an interval, unless the watch was answered meanwhile. After an error, while an answer
//! is held, and while the watch is behind, it asks within a second: a frozen server has to show its third error before
//! silence would tell.

use std::time::Duration;

use super::{Asked, Doubt, Machine, Mark, Output, Watch, Witness, leaderless, life};
use crate::clock::Timestamp;
use crate::provider::ProviderEvent;
use crate::providers::consul::failure::{Failure, FailureKind};
use crate::providers::consul::query::Consistency;
use crate::topology::Members;

/// How long the index may be above ours before the mute watch is given up. Doubles each time, so that a slow body that
/// is still arriving gets through in the end.
pub(super) const BEHIND_GRACE: Duration = Duration::from_secs(5);
/// The longest that it doubles to.
const BEHIND_GRACE_MAX: Duration = Duration::from_secs(80);
/// The longest pause between probes while something is wrong.
const HASTE: Duration = Duration::from_secs(1);

/// A probe under way, or the time of the next.
#[derive(Debug)]
pub(super) enum Probe {
    Due(Timestamp),
    /// `index` is ours as the probe was sent: a later answer of a consistent server cannot be below it.
    Pending {
        index: u64,
        consistency: Consistency,
    },
}

impl Machine {
    pub(super) fn may_probe(&self) -> bool {
        !matches!(self.watch, Watch::BackingOff(_))
    }

    pub(super) fn send_probe(&mut self) {
        let consistency = if self.probe_leader { Consistency::Consistent } else { self.settings.consistency };
        self.probe = Probe::Pending { index: self.index, consistency };
        self.outputs.push_back(Output::Probe { consistency });
    }

    /// The watch was answered, and what a probe would show is known; unless the wait was broken off without news.
    pub(super) fn schedule_probe(&mut self, now: Timestamp, asked: Asked, broken_off: bool) {
        let next = match asked.index {
            None => return,
            Some(_) if broken_off => now,
            Some(_) if matches!(self.doubt, Doubt::None) => self.next_probe(now),
            Some(_) => return,
        };
        if let Probe::Due(at) = &mut self.probe {
            *at = next;
        }
    }

    /// Something is wrong: the next probe is soon.
    pub(super) fn hasten_probe(&mut self, now: Timestamp) {
        let soon = self.next_probe(now);
        if let Probe::Due(at) = &mut self.probe {
            *at = soon.min(*at);
        }
    }

    /// When to probe after a probe, or after a trouble began.
    fn next_probe(&mut self, now: Timestamp) -> Timestamp {
        let interval = self.settings.probe_interval;
        // A doubt without an end is no reason to hurry.
        let doubted = matches!(self.doubt, Doubt::Confirming | Doubt::Holding { .. }) || !self.life.is_known();
        // Nor is what goes wrong all the time.
        if (self.failing || self.behind.is_some() || doubted) && self.unrest.reason().is_none() {
            now + self.jitter.scale(interval.min(HASTE), 0.5)
        } else {
            now + self.jitter.scale(interval, 0.9)
        }
    }

    /// Whether there is a set that may still be current, so that the index tells whether anything has to be sent.
    pub(super) fn probe_goes_first(&self) -> bool {
        self.reported && self.index > 0 && !self.unsettled && matches!(self.doubt, Doubt::None)
    }

    /// The next attempt after an error is the probe; one that is under way already will do.
    pub(super) fn recover(&mut self, now: Timestamp) {
        self.watch = Watch::Recovering;
        self.probe_leader |= std::mem::take(&mut self.ask_leader);
        if let Probe::Due(at) = &mut self.probe {
            *at = now;
        }
    }

    pub(super) fn probed(&mut self, now: Timestamp, result: Result<Mark, Failure>) {
        let Probe::Pending { index: sent, consistency } = self.probe else { return };
        self.probe_leader = false;
        let asked_leader = consistency == Consistency::Consistent;
        match (result, &self.watch) {
            // The next one has the token that is there by now.
            (Err(Failure { kind: FailureKind::Outdated, .. }), _) => {
                self.probe_leader = asked_leader;
                self.probe = Probe::Due(now + self.jitter.scale(HASTE, 0.0));
                return;
            }
            (Ok(mark), Watch::Recovering) => self.recovered(now, mark, asked_leader),
            (Err(failure), Watch::Recovering) => self.failed(now, failure.error),
            (Ok(mark), _) => self.judge_probe(now, mark, sent, asked_leader),
            (Err(failure), _) => {
                self.interrupted(now);
                self.report(now, ProviderEvent::Degraded { error: failure.error });
            }
        }
        self.probe = Probe::Due(if self.probe_leader { now } else { self.next_probe(now) });
    }

    /// The first sign after an error: whether the watch can go on where it was.
    fn recovered(&mut self, now: Timestamp, mark: Mark, asked_leader: bool) {
        let Some(index) = mark.index else { return self.ask_anew(now) };
        let lags = index < self.index && !asked_leader && self.may_lag(&mark);
        if lags || !self.is_fresh(&mark) {
            if asked_leader {
                return self.failed(now, leaderless());
            }
            self.probe_leader = true;
            return self.alive(now, false);
        }
        self.outage.heard(now);
        if index < self.index && self.may_lag(&mark) {
            return self.look(now, index);
        }
        if index < self.index {
            let detail = format!("the index went back from {} to {index}, as a probe shows", self.index);
            self.roll_back(now, Some(Witness::Probe), detail);
            return self.take_turns(now);
        }
        let has_news = index > self.index;
        self.go_on(now);
        if has_news {
            self.take_turns(now);
        }
    }

    /// The next watch brings the whole set at once, and every other watcher's does, too: each waits for a moment that it
    /// draws for itself.
    fn take_turns(&mut self, now: Timestamp) {
        let members = self.believed.as_ref().map_or(0, Members::len);
        let turn = now + self.jitter.scale(life::turn(members), 0.0);
        if let Watch::Due(at) = &mut self.watch {
            *at = turn.max(*at);
        }
    }

    /// The watch goes on from our index: news come at once, and else the whole set soon, to be compared.
    fn go_on(&mut self, now: Timestamp) {
        self.ask = Some(self.index);
        self.watch = Watch::Due(self.bucket.next(now));
        self.alive(now, false);
    }

    /// The leader is behind us, too, where any server may answer: its members tell whether that is all.
    fn look(&mut self, now: Timestamp, index: u64) {
        self.lower.suspect(index);
        self.ask_leader = true;
        self.ask_anew(now);
        self.alive(now, false);
    }

    /// Any server may have answered: one that lags proves nothing.
    pub(super) fn may_lag(&self, mark: &Mark) -> bool {
        mark.may_lag || self.settings.consistency == Consistency::Stale
    }

    fn judge_probe(&mut self, now: Timestamp, mark: Mark, sent: u64, asked_leader: bool) {
        if self.is_fresh(&mark) {
            self.outage.heard(now);
        }
        self.endured(now);
        if let Doubt::Holding { until: until @ None, .. } = &mut self.doubt {
            *until = Some(now + self.settings.repair_grace);
        }
        let (indexed, under_way) = match &self.watch {
            Watch::Pending { number, asked } => (asked.index.is_some(), Some(*number)),
            Watch::Due(_) => (self.ask.is_some(), None),
            Watch::BackingOff(_) | Watch::Recovering => (false, None),
        };
        let (Some(index), true) = (mark.index, indexed) else { return self.alive(now, false) };
        if index < sent && sent <= self.index {
            let may_lag = self.may_lag(&mark);
            if may_lag && self.lower.excuses(index) {
                let shown = self.lower.shows(index);
                return self.alive(now, shown && self.is_fresh(&mark) && self.life.is_known());
            }
            if may_lag && !asked_leader {
                self.probe_leader = true;
                return self.alive(now, false);
            }
            if under_way.is_some() {
                self.outputs.push_back(Output::AbortWatch);
            }
            if may_lag {
                return self.look(now, index);
            }
            let detail = format!("the index went back from {sent} to {index}, as a probe shows");
            return self.roll_back(now, Some(Witness::Probe), detail);
        }
        self.unrest.agrees(Witness::Probe);
        self.calm_down();
        let has_news = index > self.index;
        // One that was sent before the trouble may be waiting on a connection that is dead.
        let is_left_over = |number: &u64| !self.life.proves(*number) && matches!(self.doubt, Doubt::None);
        let Some(number) = under_way.filter(|number| has_news || is_left_over(number)) else {
            self.behind = None;
            let current = index == self.index && self.is_fresh(&mark) && self.life.is_known();
            if current && under_way.is_some() && self.unrest.reason().is_none() {
                // The watch is held as it should be: it works.
                self.backoff.reset();
            }
            return self.alive(now, current);
        };
        let since = match self.behind {
            Some((watch, since)) if watch == number => since,
            _ => now,
        };
        self.behind = Some((number, since));
        let at_once = !has_news && !self.life.was_broken_off();
        if !at_once && now.since(since) < self.behind_grace {
            return self.alive(now, false);
        }
        self.outputs.push_back(Output::AbortWatch);
        self.behind = None;
        if !at_once {
            self.behind_grace = (self.behind_grace * 2).min(BEHIND_GRACE_MAX);
        }
        if !has_news {
            self.life.broken_off();
            return self.go_on(now);
        }
        // The server lives: no reason to wait before asking again. Only the members tell whether the watch is dead: the
        // index of a service that nobody is registered for rises with others, which a streaming agent is not told.
        self.mute = true;
        self.ask_anew(now);
        self.alive(now, false);
    }
}
