//! What becomes of the definitions given at a start: those whose backends answer are accepted, the others are pending.

use std::time::{Duration, Instant};

use crossbeam_channel::select;

use super::{Enablement, ProviderEntry, STARTING, connect};
use crate::error::{ErrorCode, ProvisioningError};
use crate::provider::CancelToken;

/// The pause before backends are asked again while a start waits for them.
const PAUSE: Duration = Duration::from_millis(250);

/// Asks the backends, all at once, and again until one has answered (`all`: every one) or the time is over. Those that
/// have not answered by then are pending.
///
/// # Errors
/// What the first backend said that refuses; what came of asking, if none is accepted or `all` are wanted; and
/// [`ErrorCode::Stopped`] if `cancel` fires.
pub(super) fn admit(
    entries: &mut [ProviderEntry],
    timeout: Duration,
    all: bool,
    cancel: &CancelToken,
) -> Result<(), ProvisioningError> {
    let (started, mut left) = (Instant::now(), timeout);
    loop {
        let silent = ask(entries, left, cancel)?;
        if silent.is_empty() || (!all && entries.iter().any(ProviderEntry::is_enabled)) {
            return Ok(());
        }
        select! {
            recv(cancel.receiver()) -> _ => return Err(refusal(silent, started.elapsed())),
            default(PAUSE.min(timeout.saturating_sub(started.elapsed()))) => {}
        }
        left = timeout.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Err(refusal(silent, timeout));
        }
    }
}

/// Asks all that have not answered yet, and marks what came of it. Why some have not.
fn ask(
    entries: &mut [ProviderEntry],
    timeout: Duration,
    cancel: &CancelToken,
) -> Result<Vec<ProvisioningError>, ProvisioningError> {
    let before: Vec<_> = entries.iter().map(|entry| entry.status.clone()).collect();
    for entry in entries.iter_mut().filter(|entry| entry.is_pending()) {
        entry.status = Enablement::Enabled;
    }
    let mut silent = Vec::new();
    for (index, reason) in connect(entries, |entry| !entry.reachable, timeout, cancel) {
        if !reason.code().is_outage() {
            return Err(reason);
        }
        // That the time was over says less than what the backend did before.
        let reason = match &before[index] {
            Enablement::Pending { reason: told } if reason.code() == ErrorCode::Timeout => told.clone(),
            _ => reason,
        };
        entries[index].status = Enablement::Pending { reason: reason.clone() };
        silent.push(reason);
    }
    Ok(silent)
}

/// No provider is accepted, or not all. One reason is given as it is; several are listed.
fn refusal(mut silent: Vec<ProvisioningError>, waited: Duration) -> ProvisioningError {
    if silent.len() == 1 {
        return silent.remove(0);
    }
    let told = |error: &ProvisioningError| match error.provider() {
        Some(id) => format!("{id}: [{}] {}", error.code(), error.detail()),
        None => format!("[{}] {}", error.code(), error.detail()),
    };
    let code = silent.first().map_or(ErrorCode::Timeout, ProvisioningError::code);
    let told: Vec<_> = silent.iter().map(told).collect();
    ProvisioningError::new(code, STARTING, format!("no answer within {waited:?}: {}", told.join("; ")))
}
