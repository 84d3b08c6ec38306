//! The epoch of a start: what makes the deliveries of one start of the service greater than those of every earlier one.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{ErrorCode, ProvisioningError};

/// The greatest epochs of this process that nothing else remembers.
pub(super) struct Memory {
    /// Of starts without a store.
    storeless: AtomicU64,
    /// Of starts whose store could not keep them.
    unsaved: AtomicU64,
}

/// The memory that all starts of this process share.
pub(super) static PROCESS: Memory = Memory::new();

/// How far the clock may be behind the last start before it counts as set back, in milliseconds. Starts that follow one
/// another at once have epochs that are ahead of the clock by as many milliseconds as there are starts.
const SET_BACK: u64 = 10_000;

/// The epoch of a start, and what an operator should know about it.
pub(super) struct Epoch {
    pub(super) epoch: u64,
    pub(super) warning: Option<ProvisioningError>,
}

impl Memory {
    pub(super) const fn new() -> Self {
        Self { storeless: AtomicU64::new(0), unsaved: AtomicU64::new(0) }
    }

    /// The epoch to go on with where the store holds a set and cannot keep the epoch that was chosen for this start; it is
    /// remembered as long as the process lives. `None` where nothing would make it greater than that of another start
    /// which was not kept either: neither the clock nor the host is past what is stored.
    pub(super) fn unsaved(&self, chosen: u64, millis: u64, stored: u64, above: u64) -> Option<u64> {
        if millis.max(above) <= stored {
            return None;
        }
        let raise = |last: u64| last.checked_add(1).map(|next| next.max(chosen));
        let before = self.unsaved.fetch_update(Ordering::AcqRel, Ordering::Acquire, raise).ok()?;
        raise(before)
    }
}

/// The epoch of a start at that time, in milliseconds: the time itself, or one more than the greatest known of. `stored`:
/// that of the last start, where there is a store. `above`: the greatest that the host knows of.
///
/// # Errors
/// [`ErrorCode::StoreCorrupt`] or [`ErrorCode::InvalidValue`] if there is none greater.
pub(super) fn next(
    memory: &Memory,
    millis: u64,
    stored: Option<u64>,
    above: u64,
    doing: &'static str,
) -> Result<Epoch, ProvisioningError> {
    let exceed =
        |epoch: u64, code, detail| epoch.checked_add(1).ok_or_else(|| ProvisioningError::new(code, doing, detail));
    let given = exceed(above, ErrorCode::InvalidValue, "the epoch to exceed is the last possible one");
    let given = given.map_err(|error| error.with_field("epoch_above"))?;
    let least = match stored {
        Some(stored) => {
            exceed(stored, ErrorCode::StoreCorrupt, "the stored epoch is the last possible one")?.max(given)
        }
        None => given,
    };
    let unsaved = memory.unsaved.load(Ordering::Acquire);
    let candidate = millis.max(least).max(if unsaved == 0 { 0 } else { unsaved.saturating_add(1) });
    if stored.is_some() {
        return Ok(Epoch { epoch: candidate, warning: None });
    }
    let memory = &memory.storeless;
    let mut last = memory.load(Ordering::Acquire);
    loop {
        let epoch = candidate.max(last.saturating_add(1));
        match memory.compare_exchange(last, epoch, Ordering::AcqRel, Ordering::Acquire) {
            // Where the host knows of the last one it does what would be advised.
            Ok(_) => return Ok(Epoch { epoch, warning: behind(millis, last, doing).filter(|_| above < last) }),
            Err(other) => last = other,
        }
    }
}

/// The warning that the clock is behind an earlier start of this process. A start in another process would not know.
fn behind(millis: u64, last: u64, doing: &'static str) -> Option<ProvisioningError> {
    let back = last.saturating_sub(millis);
    (back > SET_BACK).then(|| {
        let detail =
            format!("the clock is {back} ms behind an earlier start, and there is no store to remember epochs");
        ProvisioningError::new(ErrorCode::ClockSetBack, doing, detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(millis: u64, stored: Option<u64>, above: u64) -> u64 {
        next(&Memory::new(), millis, stored, above, "testing").unwrap().epoch
    }

    #[test]
    fn p1_5_with_a_store_it_is_the_time_or_what_exceeds_the_last_one_and_the_hosts() {
        assert_eq!(epoch(1000, Some(0), 0), 1000);
        assert_eq!(epoch(1000, Some(999), 0), 1000);
        assert_eq!(epoch(1000, Some(1000), 0), 1001);
        assert_eq!(epoch(1000, Some(2000), 3000), 3001);
        let code = |stored, above| next(&Memory::new(), 0, stored, above, "testing").err().map(|error| error.code());
        assert_eq!(code(Some(u64::MAX), 0), Some(ErrorCode::StoreCorrupt));
        assert_eq!(code(Some(0), u64::MAX), Some(ErrorCode::InvalidValue));
    }

    #[test]
    fn p1_5_without_a_store_it_rises_with_every_start_of_the_process_also_within_one_millisecond() {
        let (memory, now) = (Memory::new(), 10_000_000);
        assert_eq!(next(&memory, now, None, 0, "testing").unwrap().epoch, now, "the first is the time of the start");
        for started in 1..2000 {
            let given = next(&memory, now, None, 0, "testing").unwrap();
            assert_eq!((given.epoch, given.warning.is_none()), (now + started, true));
        }
        let set_back = next(&memory, now - 3_600_000, None, 0, "testing").unwrap();
        assert_eq!(set_back.epoch, now + 2000);
        assert_eq!(set_back.warning.unwrap().code(), ErrorCode::ClockSetBack);
        let exactly = next(&memory, now - 3_600_000, None, now + 2000, "testing").unwrap();
        assert_eq!((exactly.epoch, exactly.warning), (now + 2001, None), "the host remembers the last one");
        let remembered = next(&memory, now - 3_600_000, None, now + 50_000, "testing").unwrap();
        assert_eq!((remembered.epoch, remembered.warning), (now + 50_001, None), "the host remembers");
    }

    #[test]
    fn p1_5_every_start_of_one_process_shares_the_memory() {
        let first = next(&PROCESS, 1, None, 0, "testing").unwrap().epoch;
        assert!(next(&PROCESS, 1, None, 0, "testing").unwrap().epoch > first);
    }

    #[test]
    fn p1_5_an_epoch_that_is_not_kept_rises_within_the_process_and_needs_the_clock_or_the_host() {
        let memory = Memory::new();
        assert_eq!(memory.unsaved(101, 50, 100, 0), None, "the clock is behind: each such start would be given 101");
        assert_eq!(memory.unsaved(101, 100, 100, 100), None);
        assert_eq!(memory.unsaved(201, 50, 100, 200), Some(201), "the host remembers");
        assert_eq!(memory.unsaved(150, 150, 100, 0), Some(202), "the one before was not kept either");
        assert_eq!(next(&memory, 150, Some(100), 0, "testing").unwrap().epoch, 203, "one that is kept rises, too");
        assert_eq!(next(&memory, 150, None, 0, "testing").unwrap().epoch, 203);
        assert_eq!(memory.unsaved(500, 500, 100, 0), Some(500));
        assert_eq!(Memory { unsaved: u64::MAX.into(), ..Memory::new() }.unsaved(500, 500, 100, 0), None);
    }
}
