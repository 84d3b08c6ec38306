//! What a sender seals under: one start of its process, which no two share.

/// The greatest start time, in the year 10889.
const LATEST: u64 = (1 << 48) - 1;

/// When a sender began, in milliseconds since 1970, and a random number that tells it from others who began then. The
/// start time orders the sessions of one sender; the two together are never used for two of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Session([u8; Session::LENGTH]);

impl Session {
    pub(super) const LENGTH: usize = 12;

    /// `None` if the start time is beyond the greatest.
    pub(super) fn new(start: u64, random: [u8; 6]) -> Option<Self> {
        let [0, 0, s0, s1, s2, s3, s4, s5] = start.to_be_bytes() else { return None };
        let [r0, r1, r2, r3, r4, r5] = random;
        Some(Self([s0, s1, s2, s3, s4, s5, r0, r1, r2, r3, r4, r5]))
    }

    /// The same, or as late as can be.
    pub(super) fn at_last(start: u64, random: [u8; 6]) -> Self {
        Self::new(start.min(LATEST), random).unwrap_or(Self([0xff; Self::LENGTH]))
    }

    pub(super) fn from_bytes(bytes: [u8; Self::LENGTH]) -> Self {
        Self(bytes)
    }

    pub(super) fn to_bytes(self) -> [u8; Self::LENGTH] {
        self.0
    }

    /// In milliseconds since 1970.
    pub(super) fn start(self) -> u64 {
        let [s0, s1, s2, s3, s4, s5, ..] = self.0;
        u64::from_be_bytes([0, 0, s0, s1, s2, s3, s4, s5])
    }

    pub(super) fn random(self) -> [u8; 6] {
        let [.., r0, r1, r2, r3, r4, r5] = self.0;
        [r0, r1, r2, r3, r4, r5]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m1_4_a_session_is_its_start_and_its_random_number() {
        let session = Session::new(0x0102_0304_0506, [7, 8, 9, 10, 11, 12]).unwrap();
        assert_eq!(session.to_bytes(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        assert_eq!((session.start(), session.random()), (0x0102_0304_0506, [7, 8, 9, 10, 11, 12]));
        assert_eq!(Session::from_bytes(session.to_bytes()), session);
        assert_eq!(Session::new(LATEST + 1, [0; 6]), None);
        assert_eq!(Session::at_last(u64::MAX, [7; 6]), Session::new(LATEST, [7; 6]).unwrap());
    }
}
