//! The streams of a gossip provider: what the feed reports, with a sign of life where it reports nothing.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, select};

use super::feed::Feed;
use super::keys::Keys;
use crate::membership::transport::Node;
use crate::provider::{CancelToken, ProviderEvent, ProviderStream, ProviderTermination};

/// How often a sign of life is given: within what is promised. Whoever has keys looks after them as often as members do.
const SIGN_OF_LIFE: Duration = Duration::from_secs(4);
const KEYS_READ: Duration = Duration::from_secs(2);

/// How long the end of an observer's thread is waited for, which may be in the middle of something.
const ENDED: Duration = Duration::from_millis(500);

/// See the module.
pub(super) struct GossipStream {
    feed: Arc<Feed>,
    number: u64,
    reports: Receiver<ProviderEvent>,
    cancel: CancelToken,
    /// In client mode, what the stream is told by. It ends with the stream.
    observer: Option<(Node, Arc<Keys>)>,
}

impl GossipStream {
    pub(super) fn open(feed: &Arc<Feed>, cancel: &CancelToken, observer: Option<(Node, Arc<Keys>)>) -> Self {
        let (number, reports) = feed.open();
        Self { feed: Arc::clone(feed), number, reports, cancel: cancel.clone(), observer }
    }
}

impl ProviderStream for GossipStream {
    fn next(&mut self) -> ProviderEvent {
        let pause = if self.observer.is_some() { KEYS_READ } else { SIGN_OF_LIFE };
        if self.cancel.is_cancelled() {
            return ProviderEvent::Terminated(ProviderTermination::Ended);
        }
        select! {
            recv(self.reports) -> event => event.unwrap_or(ProviderEvent::Terminated(ProviderTermination::Ended)),
            recv(self.cancel.receiver()) -> _ => ProviderEvent::Terminated(ProviderTermination::Ended),
            default(pause) => {
                if let Some((observer, keys)) = &self.observer {
                    keys.changed().into_iter().for_each(|keys| observer.set_keys(keys));
                }
                self.feed.sign_of_life()
            }
        }
    }
}

impl Drop for GossipStream {
    fn drop(&mut self) {
        self.feed.close(self.number);
        if let Some((observer, _)) = self.observer.take() {
            observer.stop();
            // What it told after the next stream has begun would be believed.
            observer.wait(ENDED);
            self.feed.ends();
        }
    }
}
