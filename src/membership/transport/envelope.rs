//! Messages as they leave and arrive: as they are, or sealed where the cluster has keys.

use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};

use super::frame::Reason;
use crate::clock::Timestamp;
use crate::membership::message::Unusable;
use crate::membership::sealing::keyring::Keyring;
use crate::membership::sealing::{Channel, Opened, Sealing, Unopened, is_sealed};
use crate::topology::NodeId;

/// After so long without a round the whole process stood still.
const STANDSTILL: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(super) enum Envelope {
    Plain,
    Sealed {
        sealing: Box<Sealing>,
        /// When the last round began.
        round: Timestamp,
    },
}

/// What became of bytes that arrived and hold no message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoMessage {
    /// They are not taken.
    Unusable(Unusable),
    /// The same, and whoever sent them is to be sent this.
    Stale(Option<Vec<u8>>),
    /// This node's own session was refused, and has begun anew: what was asked may be asked again.
    Restarted,
}

impl NoMessage {
    /// What is told of it to a reader of events; absent where nothing was wrong with what arrived.
    pub(super) fn unusable(&self) -> Option<Unusable> {
        match self {
            Self::Unusable(why) => Some(*why),
            Self::Stale(_) => Some(Unusable::Replayed),
            Self::Restarted => None,
        }
    }
}

impl Envelope {
    /// Sealed where there are keys. `id`: this node's own.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub(super) fn new(label: &str, id: NodeId, keys: Option<Keyring>, now: Timestamp) -> std::io::Result<Self> {
        let Some(keys) = keys else { return Ok(Self::Plain) };
        let random = random().ok_or_else(|| std::io::Error::other("the system gives no random bytes"))?;
        let sealing = Box::new(Sealing::new(label, id, keys, millis(now), random));
        Ok(Self::Sealed { sealing, round: now })
    }

    /// Other keys from now on. Whoever seals goes on to seal, and whoever does not has no use for keys.
    pub(super) fn set_keys(&mut self, keys: Keyring) {
        if let Self::Sealed { sealing, .. } = self {
            sealing.replace_keyring(keys);
        }
    }

    /// A round begins. After a standstill this process may be a copy, which counts to the same numbers: its session begins
    /// anew.
    pub(super) fn pass(&mut self, now: Timestamp) {
        let Self::Sealed { sealing, round } = self else { return };
        let stood_still = now.since(std::mem::replace(round, now)) > STANDSTILL;
        if let (true, Some(random)) = (stood_still, random()) {
            _ = sealing.begin_anew(millis(now), random);
        }
    }

    /// The bytes that are sent; absent where that is not possible, so that nothing may be.
    pub(super) fn seal(&mut self, channel: Channel, plain: Vec<u8>) -> Option<Vec<u8>> {
        match self {
            Self::Plain => Some(plain),
            Self::Sealed { sealing, .. } => sealing.seal(channel, &plain).ok(),
        }
    }

    /// The message in what has arrived.
    ///
    /// # Errors
    /// [`NoMessage`].
    pub(super) fn open(&mut self, channel: Channel, bytes: Vec<u8>, now: Timestamp) -> Result<Vec<u8>, NoMessage> {
        let sealing = match self {
            Self::Plain if is_sealed(&bytes) => return Err(NoMessage::Unusable(Unusable::Sealed)),
            Self::Plain => return Ok(bytes),
            Self::Sealed { sealing, .. } => sealing,
        };
        match sealing.open(channel, &bytes, now) {
            Ok(Opened::Message(message)) => Ok(message),
            Ok(Opened::Restarted) => Err(NoMessage::Restarted),
            Err(Unopened::Stale { answer }) => Err(NoMessage::Stale(answer)),
            Err(why) => Err(NoMessage::Unusable(match why {
                Unopened::OtherCluster => Unusable::OtherCluster,
                Unopened::NotSealed => Unusable::NotSealed,
                Unopened::NoSuchKey => Unusable::NoSuchKey,
                Unopened::Replayed => Unusable::Replayed,
                Unopened::Malformed => Unusable::Malformed(crate::membership::wire::Malformed::Truncated),
                Unopened::Forged | Unopened::OtherChannel | Unopened::Stale { .. } => Unusable::Forged,
            })),
        }
    }
}

/// Why a question is not taken, as it is told to whoever asks.
pub(super) fn reason(why: Unusable) -> Reason {
    match why {
        Unusable::OtherCluster => Reason::OtherCluster,
        Unusable::TooNew | Unusable::TooOld => Reason::OtherVersion,
        Unusable::Sealed => Reason::Sealed,
        Unusable::NotSealed => Reason::NotSealed,
        Unusable::NoSuchKey | Unusable::Forged => Reason::NoSuchKey,
        Unusable::Malformed(_) | Unusable::Replayed => Reason::Other(0),
    }
}

fn millis(now: Timestamp) -> u64 {
    now.as_nanos() / 1_000_000
}

fn random() -> Option<[u8; 6]> {
    let mut bytes = [0; 6];
    SystemRandom::new().fill(&mut bytes).ok().map(|()| bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::message::{LabelHash, MessageWriter};
    use crate::membership::record::Life;
    use crate::membership::wire::part::Part;

    const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    const OTHER: &str = "BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

    fn now() -> Timestamp {
        Timestamp::from_millis(1_000_000)
    }

    fn id(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn envelope(name: &str, keys: &[&str]) -> Envelope {
        let keys = (!keys.is_empty()).then(|| Keyring::parse(&keys.join("\n")).unwrap());
        Envelope::new("test", id(name), keys, now()).unwrap()
    }

    fn message(name: &str) -> Vec<u8> {
        let mut writer = MessageWriter::new(LabelHash::of("test"), &Life { id: id(name), incarnation: 1 });
        writer.part(&Part::Noted, now());
        writer.into_bytes()
    }

    /// What the second makes of what the first sends.
    fn sent(from: &mut Envelope, to: &mut Envelope) -> Result<Vec<u8>, Unusable> {
        let bytes = from.seal(Channel::Reliable, message("a")).unwrap();
        to.open(Channel::Reliable, bytes, now()).map_err(|none| none.unusable().unwrap())
    }

    #[test]
    fn m1_4_whoever_has_the_keys_hears_and_whoever_has_none_or_others_is_told_apart() {
        let (mut plain, mut other_plain) = (envelope("a", &[]), envelope("b", &[]));
        let (mut sealed, mut other_sealed) = (envelope("a", &[KEY]), envelope("b", &[KEY]));
        assert_eq!(sent(&mut plain, &mut other_plain), Ok(message("a")));
        assert_eq!(sent(&mut sealed, &mut other_sealed), Ok(message("a")));
        assert_eq!(sent(&mut sealed, &mut other_plain), Err(Unusable::Sealed));
        assert_eq!(sent(&mut plain, &mut other_sealed), Err(Unusable::NotSealed));
        assert_eq!(sent(&mut envelope("a", &[OTHER]), &mut other_sealed), Err(Unusable::NoSuchKey));
        assert_eq!(reason(Unusable::Sealed), Reason::Sealed);
        assert_eq!((reason(Unusable::NotSealed), reason(Unusable::NoSuchKey)), (Reason::NotSealed, Reason::NoSuchKey));
    }

    #[test]
    fn m1_4_keys_are_changed_in_three_steps_and_everybody_hears_everybody_throughout() {
        let steps = [&[KEY][..], &[KEY, OTHER], &[OTHER, KEY], &[OTHER]];
        for step in steps.windows(2) {
            let (mut before, mut after) = (envelope("a", step[0]), envelope("b", step[0]));
            after.set_keys(Keyring::parse(&step[1].join("\n")).unwrap());
            assert_eq!(sent(&mut before, &mut after), Ok(message("a")), "{step:?}");
            let bytes = after.seal(Channel::Datagram, message("b")).unwrap();
            assert_eq!(before.open(Channel::Datagram, bytes, now()), Ok(message("b")), "{step:?}");
        }
    }

    #[test]
    fn m1_4_whoever_stood_still_begins_a_session_and_is_heard_and_a_replay_is_not() {
        let (mut a, mut b) = (envelope("a", &[KEY]), envelope("b", &[KEY]));
        let first = a.seal(Channel::Datagram, message("a")).unwrap();
        assert_eq!(b.open(Channel::Datagram, first.clone(), now()), Ok(message("a")));
        a.pass(now() + STANDSTILL);
        let same = a.seal(Channel::Datagram, message("a")).unwrap();
        a.pass(now() + STANDSTILL * 2 + Duration::from_millis(1));
        assert_eq!(sent(&mut a, &mut b), Ok(message("a")));
        let replayed = b.open(Channel::Datagram, first.clone(), now()).unwrap_err();
        assert_eq!(replayed, NoMessage::Unusable(Unusable::Replayed));
        // The session is in the open part of each message.
        let have_one = |one: &[u8], other: &[u8]| one.windows(12).any(|part| other.windows(12).any(|of| of == part));
        let after = a.seal(Channel::Datagram, message("a")).unwrap();
        assert!(have_one(&first, &same) && !have_one(&first, &after));
    }
}
