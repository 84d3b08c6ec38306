//! Who can read what members tell each other, and who is heard: messages are sealed under a key of the cluster.
//!
//! | field | as | |
//! |---|---|---|
//! | label | 4 bytes | as of a plain message |
//! | marker | byte | 0xE1 in a datagram, 0xE2 on the reliable channel; where a plain message has its version |
//! | hint | byte | tells the key from the others of a ring, mostly |
//! | session | 12 bytes | when the sender began, in milliseconds since 1970, big-endian in 6 bytes; 6 random bytes |
//! | counter | 5 bytes | big-endian; the first message of a channel in a session is 1 |
//! | content | to the end | what follows the label of the plain message, encrypted; and a tag of 16 bytes |
//!
//! ChaCha20-Poly1305 (RFC 8439) under a key of the session's own, derived with HKDF-SHA256 (RFC 5869). The nonce is the
//! marker and the counter. No two senders share a session, and no sender counts twice to the same number: so no nonce is used twice under a key.
//! What stands in clear is authenticated.
//!
//! It is not told for whom a message is: whoever holds the key may read it and take it, once.
//!
//! | part | what it decides |
//! |---|---|
//! | [`keyring`] | which keys there are |
//! | [`session`] | what no two senders share |
//! | [`replay`] | what was taken before |

mod keyring;
mod replay;
mod session;

pub(super) use keyring::{Keyring, NoKeyring};

use std::fmt;

use ring::aead::{Aad, NONCE_LEN, Nonce};

use self::replay::{Refused, Replay};
use self::session::Session;
use super::wire::Reader;
use super::wire::message::LabelHash;
use crate::clock::Timestamp;
use crate::topology::NodeId;

const LABEL: usize = 4;
/// What stands in clear.
const HEAD: usize = LABEL + 1 + 1 + Session::LENGTH + COUNTER;
const COUNTER: usize = 5;
const TAG: usize = 16;
/// So many bytes more than the plain message has its sealed form: its label is not repeated.
pub(super) const OVERHEAD: usize = HEAD + TAG - LABEL;
/// The greatest counter.
const LAST: u64 = (1 << (8 * COUNTER)) - 1;
/// In the place of a version: no message of a member, but an answer to one that was not taken.
const ANSWER: u8 = 0;

/// By which way a message goes. What was sealed for the one is not taken by the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channel {
    Datagram,
    Reliable,
}

impl Channel {
    const fn marker(self) -> u8 {
        match self {
            Self::Datagram => 0xe1,
            Self::Reliable => 0xe2,
        }
    }

    fn of(marker: u8) -> Option<Self> {
        [Self::Datagram, Self::Reliable].into_iter().find(|channel| channel.marker() == marker)
    }
}

/// Whether the bytes are a sealed message, of whichever cluster: whoever has no key can say why it does not understand them.
pub(super) fn is_sealed(bytes: &[u8]) -> bool {
    bytes.len() >= HEAD + TAG && bytes.get(LABEL).is_some_and(|marker| Channel::of(*marker).is_some())
}

/// Why a message is not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsealable {
    /// It is no message of this cluster.
    NotAMessage,
    /// The session cannot begin anew, since no start time is greater.
    Exhausted,
}

/// What was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// The plain message.
    Message(Vec<u8>),
    /// No message: the others have refused this node's session, and it has begun anew. What they have not taken may be
    /// sealed and sent again.
    Restarted,
}

/// Why bytes were not opened. Then they have no effect at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unopened {
    /// They end too soon, or are authentic and yet no message.
    Malformed,
    /// They are for another cluster.
    OtherCluster,
    /// They are a plain message.
    NotSealed,
    /// They were sealed for the other channel.
    OtherChannel,
    /// They were sealed with a key that is not in the ring.
    NoSuchKey,
    /// They were changed, or sealed with another key, or for a label that is not quite this one.
    Forged,
    /// They were taken before, or have been overtaken by so many that nobody knows; or they are this node's own.
    Replayed,
    /// The sender has begun a later session than this one. Somebody has kept the message; or the sender's clock was set
    /// back before it began, and then it has to be answered with that, which is there where the channel is reliable.
    Stale { answer: Option<Vec<u8>> },
}

impl fmt::Display for Unopened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "it is no message",
            Self::OtherCluster => "it is for another cluster",
            Self::NotSealed => "it is not encrypted, and this cluster is",
            Self::OtherChannel => "it was encrypted for the other channel",
            Self::NoSuchKey => "it was encrypted with a key that is not known here",
            Self::Forged => "it was changed on its way, or encrypted with another key or label",
            Self::Replayed => "it was taken before",
            Self::Stale { .. } => "its sender has begun anew since, or its clock was set back",
        })
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Sealing {
    label: String,
    hash: LabelHash,
    id: NodeId,
    keyring: Keyring,
    session: Session,
    /// The counters of what was sealed last in the session.
    datagrams: u64,
    reliable: u64,
    replay: Replay,
}

impl Sealing {
    /// Of the member `id`, which begins `now_millis` after 1970. `random` comes from the operating system's generator: it
    /// alone keeps those apart that begin in the same millisecond.
    pub(super) fn new(label: &str, id: NodeId, keyring: Keyring, now_millis: u64, random: [u8; 6]) -> Self {
        Self {
            label: label.to_owned(),
            hash: LabelHash::of(label),
            id,
            keyring,
            session: Session::at_last(now_millis, random),
            datagrams: 0,
            reliable: 0,
            replay: Replay::default(),
        }
    }

    /// These are the cluster's keys from now on. What was taken before stays known.
    pub(super) fn replace_keyring(&mut self, keyring: Keyring) {
        self.keyring = keyring;
    }

    /// A new session. For whoever finds that it may run twice, such as a machine that goes on after it stood still: it may
    /// have been copied, or set back, and would count to the same numbers again.
    ///
    /// # Errors
    /// [`Unsealable::Exhausted`]; then the session goes on.
    pub(super) fn begin_anew(&mut self, now_millis: u64, random: [u8; 6]) -> Result<(), Unsealable> {
        let start = now_millis.max(self.session.start() + 1);
        self.session = Session::new(start, random).ok_or(Unsealable::Exhausted)?;
        (self.datagrams, self.reliable) = (0, 0);
        Ok(())
    }

    /// Seals a message of this cluster.
    ///
    /// # Errors
    /// [`Unsealable`]; then nothing may be sent.
    pub(super) fn seal(&mut self, channel: Channel, plain: &[u8]) -> Result<Vec<u8>, Unsealable> {
        let content = plain.strip_prefix(&self.hash.to_bytes()).ok_or(Unsealable::NotAMessage)?;
        match content.first() {
            None | Some(&ANSWER) => Err(Unsealable::NotAMessage),
            Some(_) => self.seal_content(channel, content),
        }
    }

    fn seal_content(&mut self, channel: Channel, content: &[u8]) -> Result<Vec<u8>, Unsealable> {
        let counter = self.next(channel)?;
        let key = self.keyring.sealing();
        let head = Head { channel, hint: key.hint(), session: self.session, counter };
        let key = key.of_session(&self.label, head.session).ok_or(Unsealable::Exhausted)?;
        let mut sealed = Vec::with_capacity(HEAD + content.len() + TAG);
        head.write(self.hash, &mut sealed);
        let clear = sealed.clone();
        sealed.extend_from_slice(content);
        let (_, content) = sealed.split_at_mut(clear.len());
        let tag = key.seal_in_place_separate_tag(head.nonce(), Aad::from(clear), content);
        sealed.extend_from_slice(tag.map_err(|_| Unsealable::NotAMessage)?.as_ref());
        Ok(sealed)
    }

    fn next(&mut self, channel: Channel) -> Result<u64, Unsealable> {
        if self.counter(channel) == LAST {
            self.begin_anew(0, self.session.random())?;
        }
        let counter = match channel {
            Channel::Datagram => &mut self.datagrams,
            Channel::Reliable => &mut self.reliable,
        };
        *counter += 1;
        Ok(*counter)
    }

    fn counter(&self, channel: Channel) -> u64 {
        match channel {
            Channel::Datagram => self.datagrams,
            Channel::Reliable => self.reliable,
        }
    }

    /// Opens what arrived over that channel at `now`.
    ///
    /// # Errors
    /// [`Unopened`]; then nothing has changed, and nothing may be done but to send the answer, if there is one.
    pub(super) fn open(&mut self, channel: Channel, bytes: &[u8], now: Timestamp) -> Result<Opened, Unopened> {
        let (head, sealed) = Head::read(bytes, self.hash)?;
        if head.channel != channel {
            return Err(Unopened::OtherChannel);
        }
        let message = self.decrypted(&head, bytes, sealed)?;
        // What comes back from somebody else says nothing.
        if head.session.random() == self.session.random() {
            return Err(Unopened::Replayed);
        }
        let content = message.get(LABEL..).unwrap_or_default();
        if let Some((&ANSWER, answer)) = content.split_first() {
            self.take_answer(channel, answer)?;
            return Ok(Opened::Restarted);
        }
        let sender = sender(content).ok_or(Unopened::Malformed)?;
        let least = if sender == self.id.as_str() { self.session.start() } else { 0 };
        match self.replay.take(sender, head.session, (channel, head.counter), least, now) {
            Ok(()) => Ok(Opened::Message(message)),
            Err(Refused::Replayed) => Err(Unopened::Replayed),
            Err(Refused::NoId) => Err(Unopened::Malformed),
            Err(Refused::Stale { least }) => Err(Unopened::Stale { answer: self.answer(&head, least) }),
        }
    }

    /// The plain message, as far as it is authentic.
    fn decrypted(&self, head: &Head, bytes: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Unopened> {
        let mut why = Unopened::NoSuchKey;
        let clear = bytes.get(..HEAD).unwrap_or_default();
        for key in self.keyring.opening(head.hint) {
            why = Unopened::Forged;
            let mut message = Vec::with_capacity(LABEL + sealed.len());
            message.extend_from_slice(&self.hash.to_bytes());
            message.extend_from_slice(sealed);
            let Some(key) = key.of_session(&self.label, head.session) else { continue };
            let (_, content) = message.split_at_mut(LABEL);
            let opened = key.open_in_place(head.nonce(), Aad::from(clear), content);
            if let Ok(length) = opened.map(|content| content.len()) {
                message.truncate(LABEL + length);
                return Ok(message);
            }
        }
        Err(why)
    }

    /// Says that the session began before `least`, which is the first that would be taken.
    fn answer(&mut self, question: &Head, least: u64) -> Option<Vec<u8>> {
        if question.channel != Channel::Reliable {
            return None;
        }
        let mut content = vec![ANSWER];
        content.extend_from_slice(&question.session.to_bytes());
        content.extend_from_slice(&question.counter());
        content.extend_from_slice(&least.to_be_bytes());
        self.seal_content(Channel::Reliable, &content).ok()
    }

    /// The session begins anew, if it is the one that was refused, and later than what the others know. It is then no
    /// longer the one that was refused: so an answer has no effect a second time.
    fn take_answer(&mut self, channel: Channel, answer: &[u8]) -> Result<(), Unopened> {
        let read = || {
            let (session, rest) = answer.split_first_chunk()?;
            let (counter, rest) = rest.split_first_chunk()?;
            let (least, _) = rest.split_first_chunk()?;
            Some((Session::from_bytes(*session), counter_of(*counter), u64::from_be_bytes(*least)))
        };
        let (session, counter, least) = read().filter(|_| channel == Channel::Reliable).ok_or(Unopened::Malformed)?;
        let is_ours = session == self.session && (1..=self.reliable).contains(&counter);
        if !is_ours || least <= session.start() {
            return Err(Unopened::Replayed);
        }
        // Later than the first that is taken: so nothing of the session that is known is taken by whoever hears of this one first.
        self.begin_anew(least.saturating_add(1), session.random()).map_err(|_| Unopened::Malformed)
    }
}

/// What stands in clear before the content, but for the label.
#[derive(Clone, Copy, Debug)]
struct Head {
    channel: Channel,
    hint: u8,
    session: Session,
    counter: u64,
}

impl Head {
    /// And what follows it.
    fn read(bytes: &[u8], hash: LabelHash) -> Result<(Self, &[u8]), Unopened> {
        let (label, rest) = bytes.split_first_chunk().ok_or(Unopened::Malformed)?;
        if *label != hash.to_bytes() {
            return Err(Unopened::OtherCluster);
        }
        let (marker, rest) = rest.split_first().ok_or(Unopened::Malformed)?;
        let channel = Channel::of(*marker).ok_or(Unopened::NotSealed)?;
        let (hint, rest) = rest.split_first().ok_or(Unopened::Malformed)?;
        let (session, rest) = rest.split_first_chunk().ok_or(Unopened::Malformed)?;
        let (counter, rest) = rest.split_first_chunk().ok_or(Unopened::Malformed)?;
        if rest.len() < TAG {
            return Err(Unopened::Malformed);
        }
        let (session, counter) = (Session::from_bytes(*session), counter_of(*counter));
        Ok((Self { channel, hint: *hint, session, counter }, rest))
    }

    fn write(&self, hash: LabelHash, to: &mut Vec<u8>) {
        to.extend_from_slice(&hash.to_bytes());
        to.push(self.channel.marker());
        to.push(self.hint);
        to.extend_from_slice(&self.session.to_bytes());
        to.extend_from_slice(&self.counter());
    }

    fn counter(&self) -> [u8; COUNTER] {
        let [_, _, _, counter @ ..] = self.counter.to_be_bytes();
        counter
    }

    fn nonce(&self) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        let [.., marker, c0, c1, c2, c3, c4] = &mut nonce;
        *marker = self.channel.marker();
        [*c0, *c1, *c2, *c3, *c4] = self.counter();
        Nonce::assume_unique_for_key(nonce)
    }
}

fn counter_of([c0, c1, c2, c3, c4]: [u8; COUNTER]) -> u64 {
    u64::from_be_bytes([0, 0, 0, c0, c1, c2, c3, c4])
}

/// Who says what follows a label, of whichever version.
fn sender(content: &[u8]) -> Option<&str> {
    let mut reader = Reader::new(content);
    _ = (reader.byte().ok()?, reader.byte().ok()?);
    reader.text().ok()
}
