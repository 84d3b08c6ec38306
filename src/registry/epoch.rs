//! The epoch of a start: what makes the deliveries of one start of the service greater than those of every earlier one.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{ErrorCode, ProvisioningError};

/// The greatest epoch of this process, of starts without a store: nothing else remembers them.
static LAST: AtomicU64 = AtomicU64::new(0);
/// How far the clock may be behind the last start before it counts as set back, in milliseconds. Starts that follow one
/// another at once have epochs that are ahead of the clock by as many milliseconds as there are starts.
const SET_BACK: u64 = 10_000;

/// The epoch of a start, and what an operator should know about it.
pub(super) struct Epoch {
    pub(super) epoch: u64,
    pub(super) warning: Option<ProvisioningError>,
}

/// The epoch of a start at that time, in milliseconds: the time itself, or one more than the greatest known of. `stored`:
/// that of the last start, where there is a store. `above`: the greatest that the host knows of.
///
/// # Errors
/// [`ErrorCode::StoreCorrupt`] or [`ErrorCode::InvalidValue`] if there is none greater.
pub(super) fn next(
    millis: u64,
    stored: Option<u64>,
    above: u64,
    doing: &'static str,
) -> Result<Epoch, ProvisioningError> {
    after(&LAST, millis, stored, above, doing)
}

/// [`next`], with the memory of starts without a store.
fn after(
    memory: &AtomicU64,
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
    let candidate = millis.max(least);
    if stored.is_some() {
        return Ok(Epoch { epoch: candidate, warning: None });
    }
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
        after(&AtomicU64::new(0), millis, stored, above, "testing").unwrap().epoch
    }

    #[test]
    fn p1_5_with_a_store_it_is_the_time_or_what_exceeds_the_last_one_and_the_hosts() {
        assert_eq!(epoch(1000, Some(0), 0), 1000);
        assert_eq!(epoch(1000, Some(999), 0), 1000);
        assert_eq!(epoch(1000, Some(1000), 0), 1001);
        assert_eq!(epoch(1000, Some(2000), 3000), 3001);
        let code = |stored, above| next(0, stored, above, "testing").err().map(|error| error.code());
        assert_eq!(code(Some(u64::MAX), 0), Some(ErrorCode::StoreCorrupt));
        assert_eq!(code(Some(0), u64::MAX), Some(ErrorCode::InvalidValue));
    }

    #[test]
    fn p1_5_without_a_store_it_rises_with_every_start_of_the_process_also_within_one_millisecond() {
        let (memory, now) = (AtomicU64::new(0), 10_000_000);
        assert_eq!(after(&memory, now, None, 0, "testing").unwrap().epoch, now, "the first is the time of the start");
        for started in 1..2000 {
            let next = after(&memory, now, None, 0, "testing").unwrap();
            assert_eq!((next.epoch, next.warning.is_none()), (now + started, true));
        }
        let set_back = after(&memory, now - 3_600_000, None, 0, "testing").unwrap();
        assert_eq!(set_back.epoch, now + 2000);
        assert_eq!(set_back.warning.unwrap().code(), ErrorCode::ClockSetBack);
        let remembered = after(&memory, now - 3_600_000, None, now + 50_000, "testing").unwrap();
        assert_eq!((remembered.epoch, remembered.warning), (now + 50_001, None), "the host remembers");
    }

    #[test]
    fn p1_5_every_start_of_one_process_shares_the_memory() {
        let first = next(1, None, 0, "testing").unwrap().epoch;
        assert!(next(1, None, 0, "testing").unwrap().epoch > first);
    }
}
