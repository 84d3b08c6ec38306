//! The stream of a provider that watches a backend over two connections, one for the watch and one for the probe.
//!
//! Drives what the provider brings, its [`Watch`], on the stream's thread. Holds no rules of its own: waits for a reply,
//! the machine's next deadline or a cancellation, hands it on, and passes on what the machine tells.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvError, after, select};

use crate::clock::{Clock, Timestamp};
use crate::error::{ErrorCode, ProvisioningError};
use crate::id::ProviderId;
use crate::provider::{CancelToken, ProviderEvent, ProviderStream, ProviderTermination};

/// The longest single wait, so that a clock that jumps (a suspended machine) is noticed.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A machine that decides, and the connections that carry out what it has decided.
pub(in crate::providers) trait Watch: Send {
    /// What a connection answers.
    type Reply;

    /// Where the replies of the watch and of the probe arrive.
    fn replies(&self) -> [&Receiver<Self::Reply>; 2];

    /// When time alone brings something about.
    fn timeout(&self) -> Timestamp;

    /// Takes a reply; absent: time alone has passed.
    fn handle(&mut self, now: Timestamp, reply: Option<Self::Reply>);

    /// No further reply is at hand: what was gathered from several is told now.
    fn flush(&mut self, _now: Timestamp) {}

    /// Carries out all that the machine has decided, and adds what it tells.
    fn act(&mut self, events: &mut VecDeque<ProviderEvent>);
}

/// The stream, with what it was called for and by whom.
pub(in crate::providers) struct WatchStream<W> {
    id: ProviderId,
    /// What is being done, for errors.
    doing: &'static str,
    clock: Arc<dyn Clock>,
    cancel: CancelToken,
    watch: W,
    events: VecDeque<ProviderEvent>,
}

impl<W: Watch> WatchStream<W> {
    /// Begins the watch.
    pub(in crate::providers) fn begin(
        id: ProviderId,
        doing: &'static str,
        clock: Arc<dyn Clock>,
        cancel: &CancelToken,
        watch: W,
    ) -> Self {
        let mut stream = Self { id, doing, clock, cancel: cancel.clone(), watch, events: VecDeque::new() };
        stream.act();
        stream
    }

    fn act(&mut self) {
        self.watch.act(&mut self.events);
    }

    /// The event with the provider's name in its error.
    fn named(&self, event: ProviderEvent) -> ProviderEvent {
        match event {
            ProviderEvent::Degraded { error } => ProviderEvent::Degraded { error: error.with_provider(&self.id) },
            ProviderEvent::Doubtful { reason } => ProviderEvent::Doubtful { reason: reason.with_provider(&self.id) },
            other => other,
        }
    }

    /// A connection's thread has ended, which only a panic can bring about.
    fn failed(&self) -> ProviderEvent {
        let detail = "a connection's thread has ended";
        let reason = ProvisioningError::new(ErrorCode::StreamFailed, self.doing, detail).with_provider(&self.id);
        ProviderEvent::Terminated(ProviderTermination::Errored { reason })
    }

    /// What has arrived by now, if anything.
    fn at_hand(&self) -> Option<Result<W::Reply, RecvError>> {
        let [watch, probe] = self.watch.replies();
        select! {
            recv(watch) -> reply => Some(reply),
            recv(probe) -> reply => Some(reply),
            default => None,
        }
    }

    /// The next reply; absent when it is time to look around.
    fn wait(&self) -> Option<Result<W::Reply, RecvError>> {
        let wait = self.watch.timeout().since(self.clock.now()).min(LONGEST_WAIT);
        if wait.is_zero() {
            return None;
        }
        let [watch, probe] = self.watch.replies();
        select! {
            recv(watch) -> reply => Some(reply),
            recv(probe) -> reply => Some(reply),
            recv(self.cancel.receiver()) -> _ => None,
            recv(after(wait)) -> _ => None,
        }
    }
}

impl<W: Watch> ProviderStream for WatchStream<W> {
    fn next(&mut self) -> ProviderEvent {
        loop {
            if self.cancel.is_cancelled() {
                return ProviderEvent::Terminated(ProviderTermination::Ended);
            }
            if let Some(event) = self.events.pop_front() {
                return self.named(event);
            }
            let mut reply = self.at_hand();
            if reply.is_none() {
                self.watch.flush(self.clock.now());
                self.act();
                if !self.events.is_empty() {
                    continue;
                }
                reply = self.wait();
            }
            match reply {
                _ if self.cancel.is_cancelled() => {}
                Some(Err(_)) => return self.failed(),
                reply => {
                    self.watch.handle(self.clock.now(), reply.and_then(Result::ok));
                    self.act();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::FakeClock;
    use crossbeam_channel::{Sender, bounded};

    /// Tells of every call what it was.
    struct Scripted {
        replies: [Receiver<u32>; 2],
        told: Vec<String>,
        is_due: bool,
    }

    impl Watch for Scripted {
        type Reply = u32;

        fn replies(&self) -> [&Receiver<u32>; 2] {
            self.replies.each_ref()
        }

        fn timeout(&self) -> Timestamp {
            Timestamp::from_millis(if self.is_due { 0 } else { u64::from(u32::MAX) })
        }

        fn handle(&mut self, _: Timestamp, reply: Option<u32>) {
            self.is_due = false;
            self.told.push(reply.map_or("time".into(), |reply| format!("reply {reply}")));
        }

        fn flush(&mut self, _: Timestamp) {
            if self.told.last().is_some_and(|last| last.starts_with("reply")) {
                self.told.push("flush".into());
            }
        }

        fn act(&mut self, events: &mut VecDeque<ProviderEvent>) {
            if self.told.last().is_some_and(|last| last == "flush" || last == "time") {
                let error = ProvisioningError::new(ErrorCode::Timeout, "testing", self.told.join(", "));
                events.push_back(ProviderEvent::Degraded { error });
                self.told.clear();
            }
        }
    }

    fn stream() -> (WatchStream<Scripted>, [Sender<u32>; 2], CancelToken) {
        let ((watch, watches), (probe, probes)) = (bounded(9), bounded(9));
        let cancel = CancelToken::new();
        let scripted = Scripted { replies: [watches, probes], told: Vec::new(), is_due: false };
        let id = ProviderId::new("a").unwrap();
        let stream = WatchStream::begin(id, "testing", FakeClock::new(), &cancel, scripted);
        (stream, [watch, probe], cancel)
    }

    fn told(event: &ProviderEvent) -> String {
        match event {
            ProviderEvent::Degraded { error } => format!("{}: {}", error.provider().unwrap(), error.detail()),
            ProviderEvent::Terminated(ProviderTermination::Errored { reason }) => {
                format!("{}: {}", reason.provider().unwrap(), reason.code())
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn p2_1_what_is_at_hand_is_taken_together_and_told_when_nothing_more_is() {
        let (mut stream, [watch, probe], _) = stream();
        (1..3).for_each(|number| watch.send(number).unwrap());
        probe.send(3).unwrap();
        let event = told(&stream.next());
        let mut replies: Vec<&str> = event.strip_prefix("a: ").unwrap().split(", ").collect();
        assert_eq!(replies.pop(), Some("flush"));
        replies.sort_unstable();
        assert_eq!(replies, ["reply 1", "reply 2", "reply 3"]);
    }

    #[test]
    fn p2_1_time_alone_is_handed_on_when_it_is_due() {
        let (mut stream, _senders, _) = stream();
        stream.watch.is_due = true;
        assert_eq!(told(&stream.next()), "a: time");
    }

    #[test]
    fn p2_2_a_cancelled_stream_ends_in_good_order_and_one_whose_connection_is_gone_by_an_error() {
        let (mut stream, senders, cancel) = stream();
        drop(senders);
        assert_eq!(told(&stream.next()), "a: stream-failed");
        cancel.cancel();
        assert!(matches!(stream.next(), ProviderEvent::Terminated(ProviderTermination::Ended)));
    }
}
