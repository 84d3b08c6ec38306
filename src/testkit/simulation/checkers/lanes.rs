//! What must hold between the streams and the hub: nothing that a stream has said is lost on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::ensure;
use crate::failover::SlotKey;
use crate::hub::Input;
use crate::provider::{MemberChange, ProviderEvent};
use crate::testkit::simulation::shell::TracedTick;
use crate::testkit::simulation::streams::StreamAct;
use crate::topology::Members;

/// The name by which a failure is reported.
pub(in super::super) const LANES: &str = "lanes";

/// What a stream has said, taken together.
#[derive(Clone, Debug, Default, PartialEq)]
struct Sum {
    /// Absent before the first whole set.
    members: Option<Members>,
    /// Its entries that were unusable.
    skipped: usize,
    errors: usize,
    doubts: bool,
    ended: bool,
}

impl Sum {
    fn add(&mut self, event: &ProviderEvent) -> Result<(), String> {
        ensure!(!self.ended, "{event:?} after the end of the stream");
        match event {
            ProviderEvent::Snapshot { members, skipped, .. } => {
                self.members = Some(members.clone());
                self.skipped += skipped;
            }
            ProviderEvent::Changes { changes, .. } => {
                if let Some(members) = &mut self.members {
                    for change in changes {
                        match change {
                            MemberChange::Upsert(node) => _ = members.insert(Arc::clone(node)),
                            MemberChange::Remove(id) => _ = members.remove(id),
                        }
                    }
                }
            }
            ProviderEvent::Heartbeat { .. } => {}
            ProviderEvent::Doubtful { .. } => self.doubts = true,
            ProviderEvent::Degraded { .. } => self.errors += 1,
            ProviderEvent::Terminated(_) => self.ended = true,
        }
        Ok(())
    }
}

type Stream = (SlotKey, u64);

/// What the streams have said is what the hub has heard, once it has taken all that waited; and no provider has two
/// streams that are listened to.
#[derive(Default)]
pub(in super::super) struct Lanes {
    said: BTreeMap<Stream, Sum>,
    heard: BTreeMap<Stream, Sum>,
    /// Those that the hub listens to.
    open: BTreeSet<Stream>,
    /// Those whose threads run.
    running: BTreeSet<Stream>,
}

impl Lanes {
    /// Takes what the threads did.
    pub(in super::super) fn take_act(&mut self, act: &StreamAct) -> Result<(), String> {
        match act {
            StreamAct::Opened { key, generation, .. } => {
                let other = self.running.iter().find(|(other, _)| other == key);
                ensure!(other.is_none(), "a second stream of {key} was opened while {other:?} runs");
                self.open.insert((*key, *generation));
                self.running.insert((*key, *generation));
            }
            StreamAct::Closed { key, generation } => {
                self.running.remove(&(*key, *generation));
                self.forget((*key, *generation));
            }
            StreamAct::Ended { key, generation } => _ = self.running.remove(&(*key, *generation)),
            StreamAct::Taken { key, generation, event } if self.open.contains(&(*key, *generation)) => {
                return self.said.entry((*key, *generation)).or_default().add(event);
            }
            StreamAct::Taken { .. } | StreamAct::Full | StreamAct::Early => {}
        }
        Ok(())
    }

    /// Takes what the hub heard.
    pub(in super::super) fn take_tick(&mut self, tick: &TracedTick) -> Result<(), String> {
        match &tick.input {
            Some(Input::Event { key, generation, event }) if self.open.contains(&(*key, *generation)) => {
                self.heard.entry((*key, *generation)).or_default().add(event)
            }
            // The last thing that is heard of a stream.
            Some(Input::StreamClosed { key, generation }) => {
                let stream = (*key, *generation);
                let outcome = self.compare(stream);
                self.forget(stream);
                outcome
            }
            _ => Ok(()),
        }
    }

    /// Judges what the hub has heard when it has taken all that waited.
    pub(in super::super) fn check(&self) -> Result<(), String> {
        self.said.keys().try_for_each(|stream| self.compare(*stream))
    }

    fn compare(&self, stream: Stream) -> Result<(), String> {
        let nothing = Sum::default();
        let (said, heard) = (self.said.get(&stream).unwrap_or(&nothing), self.heard.get(&stream).unwrap_or(&nothing));
        ensure!(said == heard, "{stream:?} said {said:?}, and the hub heard {heard:?}");
        Ok(())
    }

    fn forget(&mut self, stream: Stream) {
        self.open.remove(&stream);
        self.said.remove(&stream);
        self.heard.remove(&stream);
    }
}
