//! What one stream has reported and the hub has not taken yet.
//!
//! A lane is short, and belongs to one stream: however much that reports, the others and the commands wait for no more
//! than what fits into it. What can be folded is: a whole set takes the place of all that was said of members before it,
//! signs of life become one, changes become one when there are many. What cannot be folded waits for room. The end of a
//! stream always has room. A stream that reports far more than anyone could use is made to pause, and reported.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::provider::{MemberChange, ProviderEvent};
use crate::topology::{Members, NodeId, Revision};

/// How many reports may wait.
const LENGTH: usize = 64;
/// How many changes may be folded into one report.
const FOLDED: usize = 65_536;
/// More reports than this within [`WINDOW`] are a flood: the rest of the window the stream waits. Far more than the ten
/// snapshots a second that are delivered anyway.
pub(crate) const FLOOD: u32 = 100_000;
const WINDOW: Duration = Duration::from_secs(1);
/// How often a stream is reported for flooding at the most.
const REPORTED_EVERY: Duration = Duration::from_secs(60);

/// What became of a report.
#[derive(Debug)]
pub(crate) enum Offer {
    /// It waits for the hub, by itself or folded into another.
    Taken,
    /// There is no room: it may be offered again when the hub has taken something.
    Full(ProviderEvent),
    /// The stream floods: it may be offered again when that time has come.
    Early(ProviderEvent, Timestamp),
}

/// What waits in a lane.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) event: ProviderEvent,
    /// When it was reported; where it was folded, the last part of it.
    pub(crate) at: Timestamp,
}

/// The reports of one stream.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    queue: VecDeque<Waiting>,
    flood: FloodGauge,
}

impl Lane {
    /// The stream reports something.
    pub(crate) fn offer(&mut self, event: ProviderEvent, at: Timestamp) -> Offer {
        let last = matches!(event, ProviderEvent::Terminated(_));
        if let Some(until) = self.flood.early(at).filter(|_| !last) {
            return Offer::Early(event, until);
        }
        match self.fold(event, at) {
            Some(event) if self.queue.len() >= LENGTH && !last => Offer::Full(event),
            event => {
                self.flood.count(at);
                self.queue.extend(event.map(|event| Waiting { event, at }));
                debug_assert!(self.queue.len() <= LENGTH + 1);
                Offer::Taken
            }
        }
    }

    /// All that waits, in the order in which it was reported. The room stays for what comes next: what one thread
    /// allocates for each report, another would have to free.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = Waiting> + use<'_> {
        self.queue.drain(..)
    }

    /// How many reports came within a second, if the stream floods and that was not told lately.
    pub(crate) fn take_flood(&mut self, now: Timestamp) -> Option<u32> {
        self.flood.take(now)
    }

    /// Folds the report into those that wait; gives it back, perhaps enlarged, if it has to wait by itself.
    fn fold(&mut self, event: ProviderEvent, at: Timestamp) -> Option<ProviderEvent> {
        match event {
            ProviderEvent::Snapshot { members, revision, mut skipped } => {
                // What was said of members before it is superseded.
                while let Some(last) = pop_back_if(&mut self.queue, |last| is_about_members(&last.event)) {
                    if let ProviderEvent::Snapshot { skipped: more, .. } = last.event {
                        skipped += more;
                    }
                }
                Some(ProviderEvent::Snapshot { members, revision, skipped })
            }
            ProviderEvent::Heartbeat { current } => {
                // A refresh covers the signs of life before it; a mere sign of life no refresh.
                let covered = |last: &Waiting| match last.event {
                    ProviderEvent::Heartbeat { current: before } => current || !before,
                    _ => false,
                };
                while pop_back_if(&mut self.queue, covered).is_some() {}
                Some(ProviderEvent::Heartbeat { current })
            }
            ProviderEvent::Changes { changes, revision } if self.queue.len() >= LENGTH => {
                self.fold_changes(changes, revision, at)
            }
            ProviderEvent::Doubtful { reason } if self.queue.len() >= LENGTH => {
                let doubts = |last: &Waiting| matches!(last.event, ProviderEvent::Doubtful { .. });
                pop_back_if(&mut self.queue, doubts);
                Some(ProviderEvent::Doubtful { reason })
            }
            other => Some(other),
        }
    }

    /// Folds changes, and all that was said of members right before them, into one report.
    fn fold_changes(&mut self, changes: Vec<MemberChange>, revision: Revision, at: Timestamp) -> Option<ProviderEvent> {
        let mut run = Vec::new();
        while let Some(last) = pop_back_if(&mut self.queue, |last| is_about_members(&last.event)) {
            run.push(last);
        }
        let size = |event: &ProviderEvent| match event {
            ProviderEvent::Changes { changes, .. } => changes.len(),
            _ => 0,
        };
        let folded: usize = run.iter().map(|waiting| size(&waiting.event)).sum();
        if folded + changes.len() > FOLDED || run.is_empty() {
            self.queue.extend(run.into_iter().rev());
            return Some(ProviderEvent::Changes { changes, revision });
        }
        let (mut whole, mut single) = (None, Latest::default());
        for waiting in run.into_iter().rev() {
            match waiting.event {
                ProviderEvent::Snapshot { members, skipped, .. } => whole = Some((members, skipped)),
                ProviderEvent::Changes { changes, .. } => single.extend(changes),
                // Signs of life: the changes are one, too.
                _ => {}
            }
        }
        single.extend(changes);
        let changes = single.into_changes();
        let event = match whole {
            Some((members, skipped)) => ProviderEvent::Snapshot { members: apply(members, changes), revision, skipped },
            None => ProviderEvent::Changes { changes, revision },
        };
        self.queue.push_back(Waiting { event, at });
        None
    }
}

fn pop_back_if(queue: &mut VecDeque<Waiting>, is_wanted: impl Fn(&Waiting) -> bool) -> Option<Waiting> {
    if queue.back().is_some_and(is_wanted) { queue.pop_back() } else { None }
}

/// Whether it is superseded by a whole set that comes after it: members, or a sign of life.
fn is_about_members(event: &ProviderEvent) -> bool {
    matches!(event, ProviderEvent::Snapshot { .. } | ProviderEvent::Changes { .. } | ProviderEvent::Heartbeat { .. })
}

fn apply(mut members: Members, changes: Vec<MemberChange>) -> Members {
    for change in changes {
        match change {
            MemberChange::Upsert(node) => _ = members.insert(node),
            MemberChange::Remove(id) => _ = members.remove(&id),
        }
    }
    members
}

/// The last change of each node, in the order in which those came.
#[derive(Default)]
struct Latest {
    changes: BTreeMap<NodeId, (usize, MemberChange)>,
    count: usize,
}

impl Latest {
    fn extend(&mut self, changes: Vec<MemberChange>) {
        for change in changes {
            let id = match &change {
                MemberChange::Upsert(node) => node.id().clone(),
                MemberChange::Remove(id) => id.clone(),
            };
            self.count += 1;
            self.changes.insert(id, (self.count, change));
        }
    }

    fn into_changes(self) -> Vec<MemberChange> {
        let mut changes: Vec<_> = self.changes.into_values().collect();
        changes.sort_by_key(|(number, _)| *number);
        changes.into_iter().map(|(_, change)| change).collect()
    }
}

/// How much a stream reports.
#[derive(Debug, Default)]
struct FloodGauge {
    since: Timestamp,
    count: u32,
    /// The count of a window that was a flood, until it is told.
    flood: Option<u32>,
    told_at: Option<Timestamp>,
}

impl FloodGauge {
    /// Until when nothing more is taken, if too much was.
    fn early(&mut self, now: Timestamp) -> Option<Timestamp> {
        if now.since(self.since) >= WINDOW {
            (self.since, self.count) = (now, 0);
        }
        if self.count < FLOOD {
            return None;
        }
        self.flood = Some(self.count);
        Some(self.since + WINDOW)
    }

    fn count(&mut self, now: Timestamp) {
        if self.count == 0 {
            self.since = now;
        }
        self.count = self.count.saturating_add(1);
    }

    fn take(&mut self, now: Timestamp) -> Option<u32> {
        if self.told_at.is_some_and(|told| now.since(told) < REPORTED_EVERY) {
            return None;
        }
        let flood = self.flood.take()?;
        self.told_at = Some(now);
        Some(flood)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{ErrorCode, ProvisioningError};
    use crate::provider::ProviderTermination;
    use crate::testkit::{members, node};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    fn error() -> ProvisioningError {
        ProvisioningError::new(ErrorCode::BackendUnavailable, "testing", "refused")
    }

    fn whole(ids: &[&str]) -> ProviderEvent {
        ProviderEvent::Snapshot { members: members(ids), revision: Revision::NONE, skipped: 1 }
    }

    fn come(id: &str) -> ProviderEvent {
        let changes = vec![MemberChange::Upsert(Arc::new(node(id)))];
        ProviderEvent::Changes { changes, revision: Revision::NONE }
    }

    fn gone(id: &str) -> ProviderEvent {
        let changes = vec![MemberChange::Remove(NodeId::new(id).unwrap())];
        ProviderEvent::Changes { changes, revision: Revision::NONE }
    }

    fn beat(current: bool) -> ProviderEvent {
        ProviderEvent::Heartbeat { current }
    }

    fn failed() -> ProviderEvent {
        ProviderEvent::Degraded { error: error() }
    }

    fn name(event: &ProviderEvent) -> String {
        match event {
            ProviderEvent::Snapshot { members, skipped, .. } => format!("{} members, {skipped} skipped", members.len()),
            ProviderEvent::Changes { changes, .. } => format!("{} changes", changes.len()),
            ProviderEvent::Heartbeat { current: true } => "current".into(),
            ProviderEvent::Heartbeat { current: false } => "alive".into(),
            ProviderEvent::Doubtful { .. } => "doubtful".into(),
            ProviderEvent::Degraded { .. } => "degraded".into(),
            ProviderEvent::Terminated(_) => "terminated".into(),
        }
    }

    fn left(events: impl IntoIterator<Item = ProviderEvent>) -> Vec<String> {
        let mut lane = Lane::default();
        for (millis, event) in (0..).zip(events) {
            assert!(matches!(lane.offer(event, at(millis)), Offer::Taken));
        }
        lane.take().map(|waiting| name(&waiting.event)).collect()
    }

    #[test]
    fn p2_1_a_whole_set_takes_the_place_of_what_was_said_of_members_and_errors_stay() {
        let events = [whole(&["a"]), come("b"), failed(), come("c"), beat(true), whole(&["a", "b"]), whole(&["a"])];
        assert_eq!(left(events), ["1 members, 1 skipped", "1 changes", "degraded", "1 members, 2 skipped"]);
    }

    #[test]
    fn p2_5_signs_of_life_become_one_and_a_refresh_among_them_is_kept() {
        assert_eq!(left([beat(false), beat(false), beat(true), beat(true)]), ["current"]);
        assert_eq!(left([beat(true), beat(false), beat(false)]), ["current", "alive"]);
        assert_eq!(left([beat(true), failed(), beat(true)]), ["current", "degraded", "current"]);
        let mut lane = Lane::default();
        for millis in [1, 2, 3] {
            lane.offer(beat(true), at(millis));
        }
        assert_eq!(lane.take().next().map(|waiting| waiting.at), Some(at(3)), "the latest sign counts");
    }

    #[test]
    fn p2_1_many_changes_become_one_with_the_last_of_each_node() {
        let alternating = (0..1000).map(|n| if n % 2 == 0 { come("a") } else { gone("a") });
        let kept = left(alternating);
        assert!(kept.len() <= LENGTH && kept[0] == "1 changes", "{kept:?}");
        let onto_a_set = [whole(&["a"])].into_iter().chain((0..999).map(|n| come(&format!("n{n}"))));
        assert_eq!(left(onto_a_set)[0].split(',').next(), Some("961 members"), "64 at a time");
    }

    #[test]
    fn p2_2_errors_wait_for_room_and_the_end_of_a_stream_does_not() {
        let mut lane = Lane::default();
        for millis in 0..LENGTH as u64 {
            assert!(matches!(lane.offer(failed(), at(millis)), Offer::Taken));
        }
        for event in [failed(), come("a"), beat(true)] {
            assert!(matches!(lane.offer(event, at(99)), Offer::Full(_)));
        }
        let end = ProviderEvent::Terminated(ProviderTermination::Ended);
        assert!(matches!(lane.offer(end, at(100)), Offer::Taken));
        assert_eq!(lane.take().count(), LENGTH + 1);
        assert!(lane.queue.is_empty() && matches!(lane.offer(failed(), at(101)), Offer::Taken));
    }

    #[test]
    fn p2_1_more_distinct_changes_than_are_folded_wait() {
        let mut lane = Lane::default();
        let many = |from: usize| ProviderEvent::Changes {
            changes: (from..from + 1000).map(|n| MemberChange::Remove(NodeId::new(n.to_string()).unwrap())).collect(),
            revision: Revision::NONE,
        };
        let taken = (0..1000).take_while(|n| matches!(lane.offer(many(n * 1000), at(*n as u64)), Offer::Taken)).count();
        let waiting: usize = lane
            .take()
            .map(|w| match &w.event {
                ProviderEvent::Changes { changes, .. } => changes.len(),
                _ => 0,
            })
            .sum();
        assert_eq!(waiting, taken * 1000, "nothing is lost");
        assert!(waiting <= FOLDED + LENGTH * 1000, "{waiting}");
    }

    #[test]
    fn p5_1_a_stream_that_floods_waits_for_the_rest_of_the_second_and_is_reported_once_a_minute() {
        let mut lane = Lane::default();
        let offer = |lane: &mut Lane, millis| match lane.offer(beat(true), at(millis)) {
            Offer::Early(_, until) => Some(until),
            _ => None,
        };
        for _ in 0..FLOOD {
            assert_eq!(offer(&mut lane, 500), None);
        }
        assert_eq!(lane.take_flood(at(500)), None, "as much as may be is no flood");
        assert_eq!(offer(&mut lane, 501), Some(at(1500)));
        let end = ProviderEvent::Terminated(ProviderTermination::Ended);
        assert!(matches!(lane.offer(end, at(501)), Offer::Taken), "its end is not kept back");
        assert_eq!((lane.take_flood(at(501)), lane.take_flood(at(502))), (Some(FLOOD), None));
        for millis in [1500, 30_000] {
            (0..=FLOOD).for_each(|_| _ = offer(&mut lane, millis));
            assert_eq!(lane.take_flood(at(millis)), None, "once a minute");
        }
        (0..=FLOOD + 1).for_each(|_| _ = offer(&mut lane, 70_000));
        assert!(lane.take_flood(at(70_000)).is_some());
    }

    /// What the hub would make of the reports: the members, and the errors since the last refresh.
    fn outcome(events: impl IntoIterator<Item = ProviderEvent>) -> (Members, u32, usize) {
        let (mut members, mut errors, mut all) = (Members::new(), 0, 0);
        for event in events {
            match event {
                ProviderEvent::Snapshot { members: shown, .. } => (members, errors) = (shown, 0),
                ProviderEvent::Changes { changes, .. } => (members, errors) = (apply(members, changes), 0),
                ProviderEvent::Heartbeat { current: true } => errors = 0,
                ProviderEvent::Degraded { .. } => (errors, all) = (errors + 1, all + 1),
                _ => {}
            }
        }
        (members, errors, all)
    }

    fn any_event() -> impl Strategy<Value = ProviderEvent> {
        let id = || prop::sample::select(vec!["a", "b", "c", "d"]);
        prop_oneof![
            prop::collection::vec(id(), 0..4).prop_map(|ids| whole(&ids)),
            id().prop_map(come),
            id().prop_map(gone),
            any::<bool>().prop_map(beat),
            Just(failed()),
            Just(ProviderEvent::Doubtful { reason: error() }),
        ]
    }

    proptest! {
        #[test]
        fn p2_1_folding_changes_neither_what_is_shown_in_the_end_nor_the_errors(
            events in prop::collection::vec(any_event(), 0..400),
            takes in prop::collection::vec(0usize..40, 0..12),
        ) {
            let (mut lane, mut taken, mut offered) = (Lane::default(), Vec::new(), Vec::new());
            let mut next_take = takes.iter().scan(0, |sum, step| { *sum += step; Some(*sum) }).peekable();
            for (number, event) in events.into_iter().enumerate() {
                while next_take.next_if(|at| *at <= number).is_some() {
                    taken.extend(lane.take());
                }
                let copy = event.clone();
                match lane.offer(event, at(number as u64)) {
                    Offer::Taken => offered.push(copy),
                    Offer::Full(event) => {
                        taken.extend(lane.take());
                        prop_assert!(matches!(lane.offer(event, at(number as u64)), Offer::Taken));
                        offered.push(copy);
                    }
                    Offer::Early(..) => prop_assert!(false, "no flood"),
                }
            }
            taken.extend(lane.take());
            prop_assert!(taken.is_sorted_by_key(|waiting| waiting.at));
            let taken = taken.into_iter().map(|waiting| waiting.event);
            prop_assert_eq!(outcome(taken), outcome(offered));
        }
    }
}
