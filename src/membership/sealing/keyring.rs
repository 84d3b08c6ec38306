//! The cluster's keys: the first one seals, each of them opens.
//!
//! A key is changed without an interruption in three steps, each of which everybody has taken before anybody takes the
//! next: the new key is added behind the old one, moved to the front, and the old one removed.
//!
//! What is kept of a key is the pseudorandom key that HKDF (RFC 5869) extracts from it, which is wiped when it is let go.
//! The key of a session is derived from that for each message, and lives on the stack for as long as it takes.

use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ring::aead::{CHACHA20_POLY1305, LessSafeKey, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk};
use ring::hmac::{self, HMAC_SHA256};
use zeroize::Zeroizing;

use super::session::Session;

/// The bytes of a key.
const LENGTH: usize = 32;
/// The most keys of a ring: while one is changed there are two.
const MOST: usize = 8;
/// What keys are derived for, so that the same key used elsewhere yields others.
const SESSION: &[u8] = b"cluster-provisioning gossip 1 session";
const HINT: &[u8] = b"cluster-provisioning gossip 1 hint";
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a text is no keyring. It never shows a key; lines are counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoKeyring {
    /// There is no key in it.
    Empty,
    /// The line is neither 32 bytes in base64 nor 64 hexadecimal digits.
    NotAKey { line: usize },
    /// The key stood on an earlier line already.
    Twice { line: usize, first: usize },
    /// It is the ninth key.
    TooMany { line: usize },
}

impl fmt::Display for NoKeyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("there is no key in it"),
            Self::NotAKey { line } => {
                write!(
                    f,
                    "line {line}: a key is 32 bytes, in base64 or as 64 hexadecimal digits, and nothing beside it"
                )
            }
            Self::Twice { line, first } => write!(f, "line {line}: the same key as on line {first}"),
            Self::TooMany { line } => write!(f, "line {line}: there are at most {MOST} keys"),
        }
    }
}

/// See the module. There is one key at least.
pub(crate) struct Keyring {
    first: Key,
    others: Vec<Key>,
}

impl Keyring {
    /// One key a line: 32 bytes in base64, padded or not, or as 64 hexadecimal digits. Blank lines, and lines that begin
    /// with `#`, are skipped. 1 to 8 keys, each of them once.
    ///
    /// # Errors
    /// [`NoKeyring`], which never shows a key.
    pub(crate) fn parse(text: &str) -> Result<Self, NoKeyring> {
        let mut keys: Vec<(usize, Key)> = Vec::with_capacity(MOST);
        for (line, text) in (1..).zip(text.lines().map(str::trim)) {
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let key = Key::of(&*decoded(text).ok_or(NoKeyring::NotAKey { line })?);
            if let Some((first, _)) = keys.iter().find(|(_, known)| known.pseudorandom == key.pseudorandom) {
                return Err(NoKeyring::Twice { line, first: *first });
            }
            if keys.len() == MOST {
                return Err(NoKeyring::TooMany { line });
            }
            keys.push((line, key));
        }
        let mut keys = keys.into_iter().map(|(_, key)| key);
        let first = keys.next().ok_or(NoKeyring::Empty)?;
        Ok(Self { first, others: keys.collect() })
    }

    /// The key that seals.
    pub(super) fn sealing(&self) -> &Key {
        &self.first
    }

    /// The keys with that hint: mostly one, or none.
    pub(super) fn opening(&self, hint: u8) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.first).chain(&self.others).filter(move |key| key.hint == hint)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// One key of a ring.
pub(super) struct Key {
    pseudorandom: Zeroizing<[u8; LENGTH]>,
    /// Tells it from the others of its ring, mostly.
    hint: u8,
}

impl Key {
    fn of(key: &[u8; LENGTH]) -> Self {
        // RFC 5869, 2.2, without a salt: HMAC under no key.
        let extracted = hmac::sign(&hmac::Key::new(HMAC_SHA256, &[]), key);
        let mut pseudorandom = Zeroizing::new([0; LENGTH]);
        pseudorandom.iter_mut().zip(extracted.as_ref()).for_each(|(to, from)| *to = *from);
        let mut key = Self { pseudorandom, hint: 0 };
        let mut hint = [0];
        // It fails for more than 8,160 bytes alone; a hint that is 0 would be one as well.
        if key.prk().expand(&[HINT], Byte).and_then(|expanded| expanded.fill(&mut hint)).is_ok() {
            key.hint = hint[0];
        }
        key
    }

    pub(super) fn hint(&self) -> u8 {
        self.hint
    }

    /// The key of that session in the cluster of that label; `None` if there is none, which does not happen.
    pub(super) fn of_session(&self, label: &str, session: Session) -> Option<LessSafeKey> {
        let session = session.to_bytes();
        let info = [SESSION, label.as_bytes(), &session[..]];
        let derived = self.prk().expand(&info, &CHACHA20_POLY1305).ok().map(UnboundKey::from);
        derived.map(LessSafeKey::new)
    }

    fn prk(&self) -> Prk {
        Prk::new_less_safe(HKDF_SHA256, &*self.pseudorandom)
    }
}

/// HKDF expands to one byte.
struct Byte;

impl KeyType for Byte {
    fn len(&self) -> usize {
        1
    }
}

fn decoded(text: &str) -> Option<Zeroizing<[u8; LENGTH]>> {
    let mut key = Zeroizing::new([0; LENGTH]);
    if text.len() == 2 * LENGTH {
        for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digit = |at: usize| char::from(*digits.get(at)?).to_digit(16);
            *byte = (digit(0)? * 16 + digit(1)?) as u8;
        }
        return Some(key);
    }
    // 32 bytes are 43 characters, or 44 with the padding; room for what a whole last group could be.
    let mut bytes = Zeroizing::new([0; LENGTH + 1]);
    let is_as_long = (43..=44).contains(&text.len());
    let length = is_as_long.then(|| BASE64.decode_slice(text, &mut *bytes).ok()).flatten()?;
    key.iter_mut().zip(bytes.iter()).for_each(|(to, from)| *to = *from);
    (length == LENGTH).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A key as hexadecimal digits.
    fn hex(byte: u8) -> String {
        format!("{byte:02x}").repeat(LENGTH)
    }

    fn hints(text: &str) -> Vec<u8> {
        let ring = Keyring::parse(text).unwrap();
        std::iter::once(&ring.first).chain(&ring.others).map(Key::hint).collect()
    }

    #[test]
    fn m1_4_a_key_is_32_bytes_in_base64_or_hexadecimal_and_comments_and_blank_lines_are_skipped() {
        let padded = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
        let expected = hints(&hex(1));
        assert_eq!(expected.len(), 1);
        for text in [padded, padded.trim_end_matches('='), &format!("# the key\r\n\n  {padded}\t\r\n#{}\n", hex(2))] {
            assert_eq!(hints(text), expected, "{text}");
        }
        assert_eq!(hints(&"aB".repeat(LENGTH)), hints(&hex(0xab)));
        assert_eq!(hints(&format!("{}\n{}", hex(1), hex(2))), [hints(&hex(1)), hints(&hex(2))].concat());
    }

    #[test]
    fn m1_4_what_is_no_key_is_refused_by_its_line_and_never_shown() {
        let (one, two) = (hex(1), hex(2));
        let many: String = (1..=9).map(|byte| hex(byte) + "\n").collect();
        let not = |line| NoKeyring::NotAKey { line };
        let refused = [
            (String::new(), NoKeyring::Empty),
            ("# nothing\n\n".to_owned(), NoKeyring::Empty),
            (format!("{one}\n\n{two}\n{one}"), NoKeyring::Twice { line: 4, first: 1 }),
            (format!("{one}\nAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE"), NoKeyring::Twice { line: 2, first: 1 }),
            (many.clone(), NoKeyring::TooMany { line: 9 }),
            (format!("# x\n{one}0"), not(2)),
            (format!("{one} {two}"), not(1)),
            (format!("{}g0", &one[2..]), not(1)),
            (format!("{}+0", &one[2..]), not(1)),
            (format!("{}é", &one[2..]), not(1)),
            ("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB".to_owned(), not(1)),
            ("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB".to_owned(), not(1)),
            ("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ-=".to_owned(), not(1)),
            ("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQF=".to_owned(), not(1)),
        ];
        for (text, why) in refused {
            let error = Keyring::parse(&text).unwrap_err();
            assert_eq!(error, why, "{text}");
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("0101") && !shown.contains("AQEB"), "{shown}");
        }
        assert!(Keyring::parse(many.trim_end().rsplit_once('\n').unwrap().0).is_ok(), "eight");
    }

    #[test]
    fn m1_4_a_keyring_never_prints() {
        let ring = Keyring::parse(&hex(1)).unwrap();
        assert_eq!(format!("{ring:?} {ring:#?}"), "*** ***");
    }

    proptest! {
        #[test]
        fn m1_4_any_text_is_a_keyring_or_none(text in "[0-9a-f#=+/ \nAQ]{0,200}|\\PC{0,99}|[a-zA-Z0-9+/]{43}=?") {
            _ = Keyring::parse(&text);
        }
    }
}
