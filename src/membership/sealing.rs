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

pub(super) mod keyring;
mod replay;
mod session;

use std::fmt;

use ring::aead::{Aad, NONCE_LEN, Nonce};

use self::keyring::Keyring;
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

    /// Seals what follows a label: of a message, or of an answer.
    ///
    /// # Errors
    /// [`Unsealable::Exhausted`].
    pub(super) fn seal_content(&mut self, channel: Channel, content: &[u8]) -> Result<Vec<u8>, Unsealable> {
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
        sealed.extend_from_slice(tag.map_err(|_| Unsealable::Exhausted)?.as_ref());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::record::Life;
    use crate::membership::wire::message::{DATAGRAM, MessageWriter, read_message};
    use crate::membership::wire::part::Part;
    use Channel::{Datagram, Reliable};
    use proptest::prelude::*;
    use std::time::Instant;

    const BOTH: [Channel; 2] = [Datagram, Reliable];

    fn now() -> Timestamp {
        Timestamp::from_millis(1_000_000)
    }

    /// Of keys that are one byte over and over.
    fn keyring(keys: &[u8]) -> Keyring {
        let text: String = keys.iter().map(|byte| format!("{byte:02x}").repeat(32) + "\n").collect();
        Keyring::parse(&text).unwrap()
    }

    fn member_of(label: &str, id: &str, start: u64, keys: &[u8]) -> Sealing {
        let [.., a, b] = start.to_be_bytes();
        let [c, d] = [id.as_bytes()[0], id.as_bytes()[1]];
        Sealing::new(label, NodeId::new(id).unwrap(), keyring(keys), start, [a, b, c, d, 0, 0])
    }

    fn member(id: &str, start: u64) -> Sealing {
        member_of("prod", id, start, &[1])
    }

    fn plain(id: &str) -> Vec<u8> {
        let sender = Life { id: NodeId::new(id).unwrap(), incarnation: 300 };
        let mut writer = MessageWriter::new(LabelHash::of("prod"), &sender);
        writer.part(&Part::Noted, now());
        writer.into_bytes()
    }

    fn sealed(by: &mut Sealing, channel: Channel) -> Vec<u8> {
        let plain = plain(by.id.as_str());
        by.seal(channel, &plain).unwrap()
    }

    fn is_heard(by: &mut Sealing, from: &mut Sealing, channel: Channel) -> bool {
        let bytes = sealed(from, channel);
        by.open(channel, &bytes, now()) == Ok(Opened::Message(plain(from.id.as_str())))
    }

    /// What is answered to a member whose session is refused.
    fn answer(by: &mut Sealing, from: &mut Sealing) -> Vec<u8> {
        let question = sealed(from, Reliable);
        match by.open(Reliable, &question, now()) {
            Err(Unopened::Stale { answer: Some(answer) }) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    /// The bytes come from an implementation written for that from the RFCs alone, in another language.
    #[test]
    fn m1_4_a_sealed_message_has_the_bytes_that_the_table_says() {
        let key: String = (0..32).map(|byte| format!("{byte:02x}")).collect();
        let random = [0xf0, 1, 2, 3, 4, 5];
        let id = NodeId::new("n1").unwrap();
        let mut member = Sealing::new("prod", id, Keyring::parse(&key).unwrap(), 0x0190_a1b2_c3d4, random);
        let plain = [&LabelHash::of("prod").to_bytes(), &b"\x01\x01\x02n1\xac\x02\x04\x01\x01\x13\0"[..]].concat();
        let vectors = [
            "26e1b349 e1 4a 0190a1b2c3d4f00102030405 0000000001 786978f4aa4ea58e6811334f 1732b4f8d362d734b1cdab62577358b8",
            "26e1b349 e2 4a 0190a1b2c3d4f00102030405 0000000001 2be05d241bbb850324d48637 ac7fd03c7a00565e4bdc2211d67eadd4",
        ];
        for (channel, vector) in BOTH.into_iter().zip(vectors) {
            assert_eq!(member.seal(channel, &plain), Ok(bytes(vector)), "{channel:?}");
        }
    }

    #[test]
    fn m1_4_a_sealed_message_is_opened_once_and_is_then_the_plain_one() {
        let (mut n1, mut n2, mut n3) = (member("n1", 7), member("n2", 7), member("n3", 7));
        for channel in BOTH {
            let first = sealed(&mut n1, channel);
            let second = sealed(&mut n1, channel);
            for other in [&mut n2, &mut n3] {
                for bytes in [&second, &first] {
                    assert_eq!(other.open(channel, bytes, now()), Ok(Opened::Message(plain("n1"))));
                }
                assert_eq!(other.open(channel, &first, now()), Err(Unopened::Replayed));
                assert_eq!(other.open(channel, &second, now()), Err(Unopened::Replayed));
            }
            assert!(read_message(&plain("n1"), LabelHash::of("prod"), now()).is_ok());
        }
    }

    #[test]
    fn m1_4_a_sealed_message_of_which_any_bit_was_changed_or_any_end_cut_off_is_refused() {
        let (mut n1, mut n2) = (member("n1", 7), member("n2", 7));
        for channel in BOTH {
            let bytes = sealed(&mut n1, channel);
            for bit in 0..bytes.len() * 8 {
                let mut changed = bytes.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                let why = n2.open(channel, &changed, now()).unwrap_err();
                let expected = match bit / 8 {
                    0..4 => Unopened::OtherCluster,
                    4 if Channel::of(changed[4]).is_some() => Unopened::OtherChannel,
                    4 => Unopened::NotSealed,
                    5 => Unopened::NoSuchKey,
                    _ => Unopened::Forged,
                };
                assert_eq!(why, expected, "bit {bit}");
            }
            for cut in 0..bytes.len() {
                let why = n2.open(channel, &bytes[..cut], now()).unwrap_err();
                let is_whole = cut >= HEAD + TAG;
                assert_eq!(why, if is_whole { Unopened::Forged } else { Unopened::Malformed }, "cut after {cut}");
            }
            let longer = [&bytes[..], &[0]].concat();
            assert_eq!(n2.open(channel, &longer, now()), Err(Unopened::Forged));
            assert!(n2.open(channel, &bytes, now()).is_ok(), "what was refused had no effect");
        }
    }

    #[test]
    fn m1_4_who_has_another_key_or_label_is_not_heard_and_neither_is_who_has_none() {
        let (mut n1, mut n2) = (member("n1", 7), member("n2", 7));
        let bytes = sealed(&mut n1, Datagram);
        assert_eq!(member_of("prod", "n2", 7, &[2]).open(Datagram, &bytes, now()), Err(Unopened::NoSuchKey));
        let hint = keyring(&[1]).sealing().hint();
        let twin = (2..=255).find(|key| keyring(&[*key]).sealing().hint() == hint).expect("one of 254 of 256");
        let twins = member_of("prod", "n2", 7, &[twin]).open(Datagram, &bytes, now());
        assert_eq!(twins, Err(Unopened::Forged), "a key of the same hint");
        let both = member_of("prod", "n2", 7, &[twin, 1]).open(Datagram, &bytes, now());
        assert!(both.is_ok(), "two keys of one hint in a ring");
        assert_eq!(member_of("test", "n2", 7, &[1]).open(Datagram, &bytes, now()), Err(Unopened::OtherCluster));
        let mut collides = member_of("test", "n2", 7, &[1]);
        collides.hash = LabelHash::of("prod");
        assert_eq!(collides.open(Datagram, &bytes, now()), Err(Unopened::Forged), "a label of the same hash");
        assert_eq!(n2.open(Datagram, &plain("n1"), now()), Err(Unopened::NotSealed));
        assert_eq!(n2.open(Reliable, &bytes, now()), Err(Unopened::OtherChannel));
    }

    #[test]
    fn m1_4_a_node_takes_nothing_that_it_has_sealed_itself_now_or_before() {
        let mut n1 = member("n1", 1000);
        let own = sealed(&mut n1, Reliable);
        assert_eq!(n1.open(Reliable, &own, now()), Err(Unopened::Replayed));
        n1.begin_anew(2000, [9; 6]).unwrap();
        assert!(matches!(n1.open(Reliable, &own, now()), Err(Unopened::Stale { .. })));
        n1.begin_anew(0, [9; 6]).unwrap();
        assert_eq!(n1.session, Session::new(2001, [9; 6]).unwrap(), "never earlier");
        let mut restarted = member("n1", 1001);
        assert!(matches!(restarted.open(Reliable, &own, now()), Err(Unopened::Stale { .. })), "of the former process");
        assert!(is_heard(&mut restarted, &mut n1, Datagram), "another process of its id that began later");
    }

    #[test]
    fn m1_4_two_processes_of_one_id_are_both_heard_and_a_session_from_before_them_is_not() {
        let (mut former, mut first, mut second) = (member("n1", 6), member("n1", 7), member("n1", 8));
        let mut n2 = member("n2", 7);
        let kept = sealed(&mut former, Datagram);
        for process in [&mut first, &mut second] {
            assert!(is_heard(&mut n2, process, Datagram));
        }
        for process in [&mut first, &mut second] {
            assert!(is_heard(&mut n2, process, Reliable));
        }
        assert_eq!(n2.open(Datagram, &kept, now()), Err(Unopened::Stale { answer: None }));
    }

    #[test]
    fn m1_4_a_node_whose_clock_was_set_back_is_told_so_and_is_heard_again() {
        let (mut before, mut after, mut n2) = (member("n1", 5000), member("n1", 3000), member("n2", 7));
        assert!(is_heard(&mut n2, &mut before, Datagram));
        let datagram = sealed(&mut after, Datagram);
        assert_eq!(n2.open(Datagram, &datagram, now()), Err(Unopened::Stale { answer: None }));
        let answer = answer(&mut n2, &mut after);
        assert_eq!(after.open(Datagram, &answer, now()), Err(Unopened::OtherChannel));
        assert_eq!(after.open(Reliable, &answer, now()), Ok(Opened::Restarted));
        assert_eq!(after.session.start(), 5001);
        for channel in BOTH {
            assert!(is_heard(&mut n2, &mut after, channel));
            assert!(is_heard(&mut member("n3", 7), &mut after, channel));
        }
        assert!(is_heard(&mut after, &mut n2, Reliable), "the answer used no counter of a message");
    }

    #[test]
    fn m1_4_an_answer_counts_once_for_the_session_that_asked_and_only_if_a_member_gave_it() {
        let (mut before, mut after, mut n2) = (member("n1", 5000), member("n1", 3000), member("n2", 7));
        assert!(is_heard(&mut n2, &mut before, Datagram));
        let stale = answer(&mut n2, &mut after);
        for bit in 0..stale.len() * 8 {
            let mut changed = stale.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(after.open(Reliable, &changed, now()).is_err());
        }
        assert_eq!(member("n3", 3000).open(Reliable, &stale, now()), Err(Unopened::Replayed), "not the one who asked");
        assert_eq!(n2.open(Reliable, &stale, now()), Err(Unopened::Replayed), "its own");
        let second = answer(&mut n2, &mut after);
        assert_eq!(after.open(Reliable, &second, now()), Ok(Opened::Restarted));
        for old in [&stale, &second] {
            assert_eq!(after.open(Reliable, old, now()), Err(Unopened::Replayed));
        }
        assert_eq!(after.session.start(), 5001);
    }

    #[test]
    fn m1_4_an_answer_that_nobody_could_have_asked_for_has_no_effect() {
        let (mut n1, mut n2) = (member("n1", 3000), member("n2", 7));
        sealed(&mut n1, Reliable);
        let session = n1.session;
        let mut told = |session: Session, counter: u64, least: u64, rest: &[u8], channel| {
            let question = Head { channel: Reliable, hint: 0, session, counter };
            let (session, least) = (question.session.to_bytes(), least.to_be_bytes());
            let content = [&[ANSWER], &session[..], &question.counter(), &least, rest].concat();
            let answer = n2.seal_content(channel, &content).unwrap();
            n1.open(channel, &answer, now())
        };
        for counter in [0, 2] {
            assert_eq!(told(session, counter, 5000, b"", Reliable), Err(Unopened::Replayed), "no such question");
        }
        for least in [0, 2999, 3000] {
            assert_eq!(told(session, 1, least, b"", Reliable), Err(Unopened::Replayed), "it was no earlier");
        }
        let other = Session::new(3000, [9; 6]).unwrap();
        assert_eq!(told(other, 1, 5000, b"", Reliable), Err(Unopened::Replayed), "somebody else's");
        assert_eq!(told(session, 1, 5000, b"", Datagram), Err(Unopened::Malformed));
        for least in [(1 << 48) - 1, u64::MAX] {
            assert_eq!(told(session, 1, least, b"", Reliable), Err(Unopened::Malformed), "nothing is later");
        }
        assert_eq!(told(session, 1, 5000, b"more", Reliable), Ok(Opened::Restarted), "a later version adds to it");
        let cut = n2.seal_content(Reliable, &[ANSWER; 25]).unwrap();
        assert_eq!(n1.open(Reliable, &cut, now()), Err(Unopened::Malformed));
    }

    #[test]
    fn m1_4_a_session_begins_anew_before_a_counter_is_used_twice() {
        for channel in BOTH {
            let (mut n1, mut n2) = (member("n1", 3000), member("n2", 7));
            n1.datagrams = LAST - 1;
            n1.reliable = LAST - 1;
            assert!(is_heard(&mut n2, &mut n1, channel));
            assert_eq!((n1.session.start(), n1.counter(channel)), (3000, LAST));
            assert!(is_heard(&mut n2, &mut n1, channel));
            assert_eq!((n1.session.start(), n1.datagrams + n1.reliable), (3001, 1), "both channels count anew");
        }
        let mut last = member("n1", u64::MAX);
        last.datagrams = LAST;
        assert_eq!(last.seal(Datagram, &plain("n1")), Err(Unsealable::Exhausted));
        assert_eq!(last.seal(Datagram, &plain("n1")), Err(Unsealable::Exhausted));
        assert!(last.seal(Reliable, &plain("n1")).is_ok(), "the other channel goes on");
    }

    #[test]
    fn m1_4_while_a_key_is_changed_step_by_step_everybody_understands_everybody() {
        let steps: [&[u8]; 4] = [&[1], &[1, 2], &[2, 1], &[2]];
        for step in steps.windows(2) {
            let mut members = [member("n1", 7), member("n2", 7), member("n3", 7)];
            members.iter_mut().for_each(|member| member.replace_keyring(keyring(step[0])));
            for changed in 0..=members.len() {
                if let Some(member) = changed.checked_sub(1).and_then(|at| members.get_mut(at)) {
                    member.replace_keyring(keyring(step[1]));
                }
                for (from, to) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
                    let bytes = sealed(&mut members[from], Datagram);
                    assert!(members[to].open(Datagram, &bytes, now()).is_ok(), "{step:?}: {changed}, {from} to {to}");
                    assert_eq!(members[to].open(Datagram, &bytes, now()), Err(Unopened::Replayed));
                }
            }
        }
        let (mut new, mut old) = (member_of("prod", "n1", 7, &[2]), member("n2", 7));
        assert!(!is_heard(&mut new, &mut old, Datagram) && !is_heard(&mut old, &mut new, Datagram), "a step left out");
    }

    #[test]
    fn m1_4_what_was_taken_stays_taken_when_the_keys_are_replaced() {
        let (mut n1, mut n2) = (member("n1", 7), member("n2", 7));
        let bytes = sealed(&mut n1, Datagram);
        assert!(n2.open(Datagram, &bytes, now()).is_ok());
        n2.replace_keyring(keyring(&[2, 1]));
        assert_eq!(n2.open(Datagram, &bytes, now()), Err(Unopened::Replayed));
    }

    #[test]
    fn m1_4_only_messages_of_this_cluster_are_sealed_and_what_is_authentic_and_none_is_refused() {
        let (mut n1, mut n2) = (member("n1", 7), member("n2", 7));
        let label = LabelHash::of("prod").to_bytes();
        let answer = [&label, &[ANSWER, 1][..]].concat();
        for none in [&b""[..], b"prod", &label, &answer, &[&[label[0] ^ 1], &plain("n1")[1..]].concat()] {
            assert_eq!(n1.seal(Datagram, none), Err(Unsealable::NotAMessage), "{none:x?}");
        }
        for none in [&b""[..], b"\x01", b"\x01\x01", b"\x01\x01\x03n1", b"\x01\x01\0\x07", b"\x01\x01\x01\x07\x07"] {
            let sealed = n1.seal_content(Datagram, none).unwrap();
            assert_eq!(n2.open(Datagram, &sealed, now()), Err(Unopened::Malformed), "{none:x?}");
        }
        let sealed = n1.seal_content(Datagram, b"\x09\x09\x02n1\x07").unwrap();
        assert!(n2.open(Datagram, &sealed, now()).is_ok(), "whoever reads it says that its version is too new");
    }

    #[test]
    fn m1_4_a_sealed_message_is_longer_by_as_much_as_is_said_and_is_known_without_a_key() {
        let mut n1 = member("n1", 7);
        let mut plain = plain("n1");
        assert!(!is_sealed(&plain) && !is_sealed(b"") && !is_sealed(b"prod\xe1"));
        plain.resize(DATAGRAM - OVERHEAD, 0);
        for channel in BOTH {
            let sealed = n1.seal(channel, &plain).unwrap();
            assert_eq!(sealed.len(), DATAGRAM);
            assert!(is_sealed(&sealed) && !is_sealed(&sealed[..HEAD + TAG - 1]));
        }
        assert!(!is_sealed(&plain));
        assert_eq!(OVERHEAD, 35);
    }

    #[test]
    fn m1_4_keys_are_never_shown() {
        let mut n1 = member("n1", 7);
        sealed(&mut n1, Datagram);
        let shown = format!("{n1:?} {n1:#?}");
        assert!(shown.contains("keyring: ***"), "{shown}");
        let kept = &n1.keyring;
        assert!(!shown.contains("pseudorandom") && format!("{kept:?}") == "***");
    }

    #[test]
    #[ignore = "prints how long it takes; run it in release"]
    fn how_long_sealing_and_opening_take() {
        const MESSAGES: u32 = 100_000;
        for length in [100, 1365] {
            let (mut n1, mut n2) = (member("n1", 7), member("n2", 7));
            let mut plain = plain("n1");
            plain.resize(length, 0);
            let begun = Instant::now();
            let sealed: Vec<Vec<u8>> = (0..MESSAGES).map(|_| n1.seal(Datagram, &plain).unwrap()).collect();
            let sealing = begun.elapsed() / MESSAGES;
            let begun = Instant::now();
            sealed.iter().for_each(|bytes| assert!(n2.open(Datagram, bytes, now()).is_ok()));
            println!("{length} bytes: sealed in {sealing:?}, opened in {:?}", begun.elapsed() / MESSAGES);
        }
    }

    proptest! {
        #[test]
        fn m1_4_any_bytes_are_a_sealed_message_or_none(
            bytes in prop::collection::vec(any::<u8>(), 0..80), at in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            let (mut n1, mut n2) = (member("n1", 7), member("n2", 7));
            let headed = [&LabelHash::of("prod").to_bytes()[..], &[0xe2, keyring(&[1]).sealing().hint()], &bytes[..]].concat();
            let content = n1.seal_content(Reliable, &bytes).unwrap();
            let mut changed = sealed(&mut n1, Reliable);
            let at = at.index(changed.len());
            changed[at] = byte;
            for any in [&bytes, &headed, &content, &changed] {
                _ = is_sealed(any);
                for channel in BOTH {
                    if n2.open(channel, any, now()).is_ok() {
                        prop_assert_eq!(n2.open(channel, any, now()), Err(Unopened::Replayed));
                    }
                }
            }
        }

        #[test]
        fn m1_4_any_content_is_opened_as_it_was_sealed(content in prop::collection::vec(any::<u8>(), 0..2000)) {
            let (mut n1, mut n2) = (member("n1", 7), member("n2", 7));
            let plain = [&plain("n1")[..], &content].concat();
            for channel in BOTH {
                let sealed = n1.seal(channel, &plain).unwrap();
                prop_assert_eq!(sealed.len(), plain.len() + OVERHEAD);
                prop_assert_eq!(n2.open(channel, &sealed, now()), Ok(Opened::Message(plain.clone())));
            }
        }
    }
}
