//! What one tick brings about, gathered while its rules are applied.
//!
//! A turn borrows the hub's record and ends with its tick: what it holds cannot be looked at in a later one.

use std::sync::Arc;

use super::record::Record;
use super::{LogLine, StreamCommand, Tick};
use crate::clock::Timestamp;
use crate::error::ProvisioningError;
use crate::event::{ProvisioningEvent, Warning};
use crate::topology::{Members, Position, TopologyDiff};

/// What the provider followed said in this tick about its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Report {
    /// Nothing.
    #[default]
    None,
    /// That they are as they were.
    Confirmed,
    /// That they have changed.
    Changed,
}

/// The snapshot that went out in this tick: from which members it leads, and how.
#[derive(Debug)]
pub(super) struct Delivered {
    pub(super) from: Members,
    pub(super) diff: Arc<TopologyDiff>,
}

/// A tick under way.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    now: Timestamp,
    record: &'a mut Record,
    events: Vec<ProvisioningEvent>,
    streams: Vec<StreamCommand>,
    lines: Vec<LogLine>,
    report: Report,
    delivered: Option<Delivered>,
    waited_since: Option<Timestamp>,
    discarded: Option<Members>,
}

impl<'a> Turn<'a> {
    pub(super) fn begin(record: &'a mut Record, now: Timestamp) -> Self {
        Self {
            now,
            record,
            events: Vec::new(),
            streams: Vec::new(),
            lines: Vec::new(),
            report: Report::None,
            delivered: None,
            waited_since: None,
            discarded: None,
        }
    }

    /// The time of the tick.
    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    /// Adds a delivery, which gets the next position.
    pub(super) fn deliver(&mut self, delivery: impl FnOnce(Position, Timestamp) -> ProvisioningEvent) {
        let position = self.record.next_position();
        self.events.push(delivery(position, self.now));
    }

    /// Adds a warning, as a delivery and as a line of the log.
    pub(super) fn warn(&mut self, error: ProvisioningError) {
        self.deliver(|position, at| ProvisioningEvent::Warning(Warning { position, at, error: error.clone() }));
        let text = format!("{error} (after {})", self.record.position());
        self.lines.push(LogLine { level: log::Level::Warn, text });
    }

    /// Notes a decision, for those who ask why and for the log.
    pub(super) fn decide(&mut self, text: String) {
        let line = format!("{text} (after {})", self.record.position());
        self.lines.push(LogLine { level: log::Level::Info, text: line });
        self.record.decide(self.now, &text);
    }

    /// Orders something of the streams' threads.
    pub(super) fn order(&mut self, command: StreamCommand) {
        self.streams.push(command);
    }

    /// The provider followed spoke of its members.
    pub(super) fn note_report(&mut self, report: Report) {
        self.report = report;
    }

    pub(super) fn report(&self) -> Report {
        self.report
    }

    /// A snapshot goes out. `waited_since`: when the provider reported what it shows, where that had to wait.
    pub(super) fn note_delivered(&mut self, delivered: Delivered, waited_since: Option<Timestamp>) {
        self.delivered = Some(delivered);
        self.waited_since = waited_since.or(self.waited_since);
    }

    /// The snapshot that went out last in this tick.
    pub(super) fn delivered(&self) -> Option<&Delivered> {
        self.delivered.as_ref()
    }

    /// The set that a provider listed, to be let go of after the callbacks.
    pub(super) fn discard(&mut self, members: Members) {
        self.discarded = Some(members);
    }

    /// Makes room for so many more deliveries.
    pub(super) fn reserve(&mut self, deliveries: usize) {
        self.events.reserve(deliveries);
    }

    pub(super) fn finish(self, reply: Result<(), ProvisioningError>) -> Tick {
        Tick {
            events: self.events,
            streams: self.streams,
            lines: self.lines,
            waited_since: self.waited_since,
            discarded: self.discarded,
            reply,
        }
    }

    /// The deliveries alone, of what follows after a tick's first callbacks.
    pub(super) fn into_events(self) -> (Vec<ProvisioningEvent>, Vec<LogLine>) {
        (self.events, self.lines)
    }
}
