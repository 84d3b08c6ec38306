//! Which messages were taken before, so that none counts twice.
//!
//! Of each session of a sender, and of each channel, the last counters taken are remembered, and a floor: what is not above it is
//! refused. A window of so many counters below the greatest, as IPsec has it (RFC 4303, 3.4.3), would not do: a sender counts what it
//! says to all, so that what it says to one has large gaps.
//!
//! | what | for how long |
//! |---|---|
//! | the last 64 counters of a channel | until nothing was heard in the session for a minute; then the greatest is the floor |
//! | the sessions of an id | four, the oldest go; an hour after they were heard, all but the one that began last |
//! | an id | an hour, and a thousand for longer; of more than 100,000 those go that were heard least recently |
//!
//! A session that is unknown has to begin no earlier than the latest that is known, or was forgotten: it would be an earlier
//! one, whose messages somebody kept. So nothing is taken twice for as long as its id is remembered.

use std::collections::HashMap;
use std::time::Duration;

use super::Channel;
use super::session::Session;
use crate::clock::Timestamp;
use crate::membership::table;
use crate::topology::NodeId;

/// How many messages of a channel may be overtaken by one.
const WINDOW: usize = 64;
/// What was sent so long before another message does not arrive after it.
const OVERTAKEN: Duration = Duration::from_secs(60);
/// The sessions of one id: a restart, and two processes of one id until they have settled whose it is.
const SESSIONS: usize = 4;
/// For how long a session, and an id, is remembered.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// So many ids are remembered in any case.
const LEAST_REMEMBERED: usize = 1000;
/// The most ids, and how many are forgotten together where there are more.
const MOST: usize = table::MOST;
const AT_ONCE: usize = MOST / 16;
/// How often is looked for what can be forgotten.
const SWEEP: Duration = Duration::from_secs(600);

/// Why a message is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It was taken before, or is so late that nobody knows.
    Replayed,
    /// Its session is unknown, and began earlier than that: the least that would be taken.
    Stale { least: u64 },
    /// The sender's id is none.
    NoId,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Replay {
    ids: HashMap<NodeId, Known>,
    swept: Timestamp,
}

impl Replay {
    /// A message that is authentic arrived at `now`. `least`: unknown sessions that began earlier are refused in any case.
    ///
    /// # Errors
    /// [`Refused`]; then nothing has changed.
    pub(super) fn take(
        &mut self,
        id: &str,
        session: Session,
        (channel, counter): (Channel, u64),
        least: u64,
        now: Timestamp,
    ) -> Result<(), Refused> {
        if now.since(self.swept) >= SWEEP {
            self.sweep(now);
        }
        if let Some(known) = self.ids.get_mut(id) {
            return known.take(session, (channel, counter), least, now);
        }
        let mut known = Known::default();
        known.take(session, (channel, counter), least, now)?;
        let id = NodeId::new(id).map_err(|_| Refused::NoId)?;
        if self.ids.len() >= MOST {
            self.forget(AT_ONCE);
        }
        self.ids.insert(id, known);
        Ok(())
    }

    fn sweep(&mut self, now: Timestamp) {
        self.swept = now;
        self.ids.values_mut().for_each(|known| known.sweep(now));
        let quiet = self.ids.values().filter(|known| now.since(known.heard()) > REMEMBERED).count();
        self.forget(quiet.saturating_sub(LEAST_REMEMBERED));
    }

    /// So many of those that were heard least recently.
    fn forget(&mut self, count: usize) {
        let mut heard: Vec<Timestamp> = self.ids.values().map(Known::heard).collect();
        let count = count.min(heard.len());
        let Some(last) = count.checked_sub(1) else { return };
        let (earlier, last, _) = heard.select_nth_unstable(last);
        let last = *last;
        // Of those that were heard at that very time as many as are left to forget.
        let mut left = count - earlier.iter().filter(|heard| **heard < last).count();
        self.ids.retain(|_, known| match known.heard().cmp(&last) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal if left > 0 => {
                left -= 1;
                false
            }
            _ => true,
        });
        self.ids.shrink_to(self.ids.len() * 2);
    }
}

/// What is known of one id.
#[derive(Debug, Default)]
struct Known {
    /// Unknown sessions that began earlier are refused.
    least: u64,
    sessions: Vec<Heard>,
}

impl Known {
    fn take(
        &mut self,
        session: Session,
        (channel, counter): (Channel, u64),
        least: u64,
        now: Timestamp,
    ) -> Result<(), Refused> {
        if let Some(known) = self.sessions.iter_mut().find(|known| known.session == session) {
            return known.take(channel, counter, now);
        }
        let least = self.least.max(least);
        if session.start() < least {
            return Err(Refused::Stale { least });
        }
        let mut known = Heard { session, heard: now, datagrams: Taken::default(), reliable: Taken::default() };
        known.take(channel, counter, now)?;
        self.least = least.max(session.start());
        self.sessions.reserve_exact(1);
        self.sessions.push(known);
        if self.sessions.len() > SESSIONS {
            let oldest = self.sessions.iter().map(|known| known.session).min();
            self.keep(|known| Some(known.session) != oldest);
        }
        Ok(())
    }

    fn sweep(&mut self, now: Timestamp) {
        self.sessions.iter_mut().for_each(|known| known.sweep(now));
        let last = self.sessions.iter().max_by_key(|known| (known.session.start(), known.heard));
        let last = last.map(|known| known.session);
        self.keep(|known| Some(known.session) == last || now.since(known.heard) <= REMEMBERED);
    }

    /// What of the sessions is forgotten is not taken as a new one later.
    fn keep(&mut self, is_kept: impl Fn(&Heard) -> bool) {
        let gone = self.sessions.iter().filter(|known| !is_kept(known)).map(|known| known.session.start()).max();
        self.least = self.least.max(gone.map_or(0, |start| start + 1));
        self.sessions.retain(is_kept);
        self.sessions.shrink_to_fit();
    }

    fn heard(&self) -> Timestamp {
        self.sessions.iter().map(|known| known.heard).max().unwrap_or_default()
    }
}

/// What was taken of one session.
#[derive(Debug)]
struct Heard {
    session: Session,
    /// When the last message was taken.
    heard: Timestamp,
    datagrams: Taken,
    reliable: Taken,
}

impl Heard {
    fn take(&mut self, channel: Channel, counter: u64, now: Timestamp) -> Result<(), Refused> {
        self.sweep(now);
        let taken = match channel {
            Channel::Datagram => &mut self.datagrams,
            Channel::Reliable => &mut self.reliable,
        };
        if !taken.take(counter) {
            return Err(Refused::Replayed);
        }
        self.heard = self.heard.max(now);
        Ok(())
    }

    fn sweep(&mut self, now: Timestamp) {
        if now.since(self.heard) > OVERTAKEN {
            self.datagrams.settle();
            self.reliable.settle();
        }
    }
}

/// Which counters of one channel were taken.
#[derive(Debug, Default)]
struct Taken {
    /// What is not greater is refused.
    floor: u64,
    /// The greatest that were taken, sorted; all of them above the floor.
    last: Vec<u64>,
}

impl Taken {
    /// Whether the counter is new, and then it is taken.
    fn take(&mut self, counter: u64) -> bool {
        if counter <= self.floor {
            return false;
        }
        let Err(place) = self.last.binary_search(&counter) else { return false };
        if self.last.len() < WINDOW {
            self.last.insert(place, counter);
            return true;
        }
        match place.checked_sub(1) {
            Some(place) => {
                self.floor = self.last.remove(0);
                self.last.insert(place, counter);
            }
            None => self.floor = counter,
        }
        true
    }

    fn settle(&mut self) {
        self.floor = self.last.last().copied().unwrap_or(self.floor);
        self.last = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + seconds * 1000)
    }

    fn session(start: u64, random: u8) -> Session {
        Session::new(start, [random; 6]).unwrap()
    }

    /// A message of n1, which began at `start`.
    fn take(replay: &mut Replay, start: u64, counter: u64, seconds: u64) -> Result<(), Refused> {
        replay.take("n1", session(start, 1), (Channel::Datagram, counter), 0, at(seconds))
    }

    #[test]
    fn m1_4_a_message_is_taken_once_in_whichever_order_they_come_and_each_channel_counts_for_itself() {
        let mut replay = Replay::default();
        for counter in [5000, 3, 70_000, 4, 1 << 39] {
            assert_eq!(take(&mut replay, 7, counter, 0), Ok(()));
            assert_eq!(take(&mut replay, 7, counter, 0), Err(Refused::Replayed));
            let reliable = (Channel::Reliable, counter);
            assert_eq!(replay.take("n1", session(7, 1), reliable, 0, at(0)), Ok(()));
            assert_eq!(replay.take("n1", session(7, 1), reliable, 0, at(0)), Err(Refused::Replayed));
            assert_eq!(replay.take("n2", session(7, 2), reliable, 0, at(0)), Ok(()));
        }
        assert_eq!(take(&mut replay, 7, 0, 0), Err(Refused::Replayed), "nobody counts from 0");
    }

    #[test]
    fn m1_4_what_64_messages_have_overtaken_is_refused() {
        let mut replay = Replay::default();
        for n in 2..66 {
            assert_eq!(take(&mut replay, 7, n * 1000, 0), Ok(()));
        }
        assert_eq!(take(&mut replay, 7, 1500, 0), Ok(()), "no more than 64 have overtaken it");
        assert_eq!(take(&mut replay, 7, 1501, 0), Ok(()));
        assert_eq!(take(&mut replay, 7, 1499, 0), Err(Refused::Replayed));
        assert_eq!(take(&mut replay, 7, 1501, 0), Err(Refused::Replayed));
        assert_eq!(take(&mut replay, 7, 66_000, 0), Ok(()));
        assert_eq!(take(&mut replay, 7, 2000, 0), Err(Refused::Replayed));
        assert_eq!(take(&mut replay, 7, 2001, 0), Ok(()));
    }

    #[test]
    fn m1_4_after_a_minute_of_silence_the_greatest_is_the_floor_and_the_room_is_given_back() {
        let mut replay = Replay::default();
        for counter in [10, 30] {
            assert_eq!(take(&mut replay, 7, counter, 0), Ok(()));
        }
        assert_eq!(take(&mut replay, 7, 20, 60), Ok(()));
        assert_eq!(take(&mut replay, 7, 25, 121), Err(Refused::Replayed));
        assert_eq!(take(&mut replay, 7, 31, 121), Ok(()));
        assert_eq!(replay.ids["n1"].sessions[0].datagrams.last, [31]);
    }

    #[test]
    fn m1_4_an_earlier_session_is_refused_unless_it_was_known_before() {
        let mut replay = Replay::default();
        assert_eq!(take(&mut replay, 7, 1, 0), Ok(()));
        assert_eq!(take(&mut replay, 9, 1, 0), Ok(()), "a restart");
        assert_eq!(take(&mut replay, 7, 2, 0), Ok(()), "the former process, if there are two");
        assert_eq!(take(&mut replay, 8, 1, 0), Err(Refused::Stale { least: 9 }));
        let twin = |replay: &mut Replay| replay.take("n1", session(9, 2), (Channel::Datagram, 1), 0, at(0));
        assert_eq!(twin(&mut replay), Ok(()), "two that began at one time");
        assert_eq!(twin(&mut replay), Err(Refused::Replayed));
        assert_eq!(replay.take("n2", session(8, 1), (Channel::Datagram, 1), 0, at(0)), Ok(()), "of another id");
        let own = replay.take("n3", session(8, 1), (Channel::Datagram, 1), 9, at(0));
        assert_eq!(own, Err(Refused::Stale { least: 9 }));
        assert_eq!(replay.ids.len(), 2, "who is refused takes no room");
    }

    #[test]
    fn m1_4_an_id_has_four_sessions_and_the_oldest_that_goes_is_not_taken_as_new() {
        let mut replay = Replay::default();
        for start in 1..=5 {
            assert_eq!(take(&mut replay, start, 1, 0), Ok(()));
        }
        assert_eq!(take(&mut replay, 1, 2, 0), Err(Refused::Stale { least: 5 }));
        assert_eq!(take(&mut replay, 2, 2, 0), Ok(()));
        let mut twins = Replay::default();
        for random in 1..=5 {
            assert_eq!(twins.take("n1", session(7, random), (Channel::Datagram, 1), 0, at(0)), Ok(()));
        }
        let first = twins.take("n1", session(7, 1), (Channel::Datagram, 1), 0, at(0));
        assert_eq!(first, Err(Refused::Stale { least: 8 }), "though it began when the others did");
    }

    #[test]
    fn m1_4_after_an_hour_an_id_is_known_by_its_last_session_alone_and_still_refuses_what_was() {
        let mut replay = Replay::default();
        for start in [7, 9] {
            assert_eq!(take(&mut replay, start, 5, 0), Ok(()));
        }
        let later = 3601 + 600;
        assert_eq!(replay.take("n2", session(1, 1), (Channel::Datagram, 1), 0, at(later)), Ok(()));
        assert_eq!(replay.ids["n1"].sessions.len(), 1);
        assert_eq!(take(&mut replay, 7, 6, later), Err(Refused::Stale { least: 9 }));
        assert_eq!(take(&mut replay, 9, 5, later), Err(Refused::Replayed));
        assert_eq!(take(&mut replay, 9, 6, later), Ok(()));
    }

    #[test]
    fn m1_4_of_the_ids_that_are_quiet_for_an_hour_a_thousand_are_remembered() {
        let mut replay = Replay::default();
        let hear = |replay: &mut Replay, n: u64, seconds| {
            let heard = replay.take(&format!("n{n}"), session(7, 1), (Channel::Datagram, 1), 0, at(seconds));
            assert_eq!(heard, Ok(()), "{n}");
        };
        (0..1100).for_each(|n| hear(&mut replay, n, n / 100));
        hear(&mut replay, 5000, 3000);
        hear(&mut replay, 5001, 3700);
        assert_eq!(replay.ids.len(), 1002, "a thousand, and the two that are not quiet");
        assert!(!replay.ids.contains_key("n99") && replay.ids.contains_key("n100"));
    }

    #[test]
    fn m1_4_there_are_100_000_ids_at_most_and_those_heard_least_recently_are_forgotten() {
        let mut replay = Replay::default();
        let ids = MOST as u64 + 1;
        for n in 0..ids {
            let now = Timestamp::from_millis(1_000_000 + n / 2);
            let heard = replay.take(&format!("n{n}"), session(7, 1), (Channel::Datagram, 1), 0, now);
            assert_eq!(heard, Ok(()));
        }
        assert_eq!(replay.ids.len(), MOST - AT_ONCE + 1);
        let first_kept = AT_ONCE as u64;
        assert!(!replay.ids.contains_key(format!("n{}", first_kept - 1).as_str()));
        assert!(replay.ids.contains_key(format!("n{first_kept}").as_str()));
    }

    #[test]
    fn m1_4_ids_that_were_heard_at_one_time_are_forgotten_no_more_than_have_to_be() {
        let mut replay = Replay::default();
        for n in 0..10 {
            let now = at(u64::from(n > 1) + u64::from(n > 6));
            replay.take(&format!("n{n}"), session(7, 1), (Channel::Datagram, 1), 0, now).unwrap();
        }
        replay.forget(4);
        assert_eq!(replay.ids.len(), 6);
        assert!(!replay.ids.contains_key("n0") && !replay.ids.contains_key("n1") && replay.ids.contains_key("n7"));
        replay.forget(0);
        assert_eq!(replay.ids.len(), 6);
        replay.forget(7);
        assert_eq!(replay.ids.len(), 0);
    }

    #[test]
    fn m1_4_who_has_no_id_is_not_remembered() {
        let mut replay = Replay::default();
        let taken = replay.take("", session(7, 1), (Channel::Datagram, 1), 0, at(0));
        assert_eq!((taken, replay.ids.len()), (Err(Refused::NoId), 0));
    }

    proptest! {
        /// Beside a set of all that was ever taken.
        #[test]
        fn m1_4_none_is_taken_twice_and_each_that_fewer_than_64_have_overtaken_is(
            counters in prop::collection::vec(prop_oneof![1u64..200, 1u64..100_000, 1u64..1 << 40], 0..600),
        ) {
            let (mut taken, mut all) = (Taken::default(), BTreeSet::new());
            for counter in counters {
                let overtaken = all.range(counter..).count();
                let is_new = !all.contains(&counter);
                let is_taken = taken.take(counter);
                prop_assert!(is_new || !is_taken);
                prop_assert!(is_taken || !is_new || overtaken >= WINDOW);
                prop_assert_eq!(is_taken, is_new && all.iter().rev().nth(WINDOW).is_none_or(|floor| counter > *floor));
                if is_taken {
                    all.insert(counter);
                }
                prop_assert!(taken.last.len() <= WINDOW && taken.last.is_sorted());
            }
        }

        #[test]
        fn m1_4_whatever_sessions_come_and_go_no_message_is_taken_twice(
            steps in prop::collection::vec((1u64..9, 0u8..2, 1u64..12, any::<bool>(), 0u64..2000), 0..200),
        ) {
            let (mut replay, mut all, mut seconds) = (Replay::default(), BTreeSet::new(), 0);
            for (start, random, counter, is_datagram, pause) in steps {
                seconds += if pause > 1900 { 4000 } else { pause / 100 };
                let channel = if is_datagram { Channel::Datagram } else { Channel::Reliable };
                let taken = replay.take("n1", session(start, random), (channel, counter), 0, at(seconds));
                if taken.is_ok() {
                    prop_assert!(all.insert((start, random, counter, is_datagram)), "twice");
                }
                let known = &replay.ids.get("n1");
                prop_assert!(known.is_none_or(|known| (1..=SESSIONS).contains(&known.sessions.len())));
            }
        }
    }
}
