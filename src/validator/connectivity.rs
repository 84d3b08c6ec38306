//! Asking many backends at once whether they are there, within one time limit for all together.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{at, bounded, select};

use crate::error::{ErrorCode, ProvisioningError};
use crate::id::ProviderId;
use crate::panics::{caught, discard};
use crate::provider::{CancelToken, ClusterProvider};
use crate::thread::Thread;

const CHECKING: &str = "checking a provider's connectivity";

/// Checks all the providers at once, each on a thread of its own, and answers in their order. Returns at the latest when
/// the timeout, for all together, is over, or when `cancel` fires: the checks are then told to end, and one that does
/// not is left behind, to end whenever it does.
///
/// # Errors
/// For each provider its own error, with its id. [`ErrorCode::Timeout`] if it did not answer in time,
/// [`ErrorCode::Stopped`] if `cancel` fired first, [`ErrorCode::ProviderPanicked`] if it panicked,
/// [`ErrorCode::ThreadRefused`] if the system refused a thread.
pub fn check_connectivity(
    providers: &[Arc<dyn ClusterProvider>],
    timeout: Duration,
    cancel: &CancelToken,
) -> Vec<Result<(), ProvisioningError>> {
    let now = Instant::now();
    // A timeout beyond the end of time is none that anybody waits for.
    let deadline = now.checked_add(timeout).unwrap_or_else(|| now + Duration::from_secs(86_400));
    let stop = CancelToken::new();
    let (sender, results) = bounded(providers.len());
    let mut answers: Vec<Option<Result<(), ProvisioningError>>> = Vec::with_capacity(providers.len());
    let mut awaited = 0;
    for (index, provider) in providers.iter().enumerate() {
        let (check, sender, stop) = (Arc::clone(provider), sender.clone(), stop.clone());
        let work = move || {
            // Refused only if nobody waits any more.
            let _ = sender.send((index, check_one(check.as_ref(), &stop)));
            // It may be the last to hold one that was refused meanwhile.
            discard(check);
        };
        let name = id_of(provider.as_ref()).map_or_else(|| index.to_string(), |id| id.to_string());
        match Thread::Check(&name).spawn(work) {
            Ok(_) => {
                awaited += 1;
                answers.push(None);
            }
            Err(error) => {
                let error = ProvisioningError::new(ErrorCode::ThreadRefused, CHECKING, error.to_string());
                answers.push(Some(Err(named(error, provider.as_ref()))));
            }
        }
    }
    let over = at(deadline);
    let mut unanswered = (ErrorCode::Timeout, format!("no answer within {timeout:?}"));
    while awaited > 0 {
        select! {
            recv(results) -> result => {
                let Ok((index, answer)) = result else { break };
                answers[index] = Some(answer);
                awaited -= 1;
            }
            recv(cancel.receiver()) -> _ => {
                unanswered = (ErrorCode::Stopped, "the check was called off".to_owned());
                break;
            }
            recv(over) -> _ => break,
        }
    }
    // What came in at the last moment counts.
    for (index, answer) in results.try_iter() {
        answers[index] = Some(answer);
    }
    stop.cancel();
    let (code, reason) = unanswered;
    let finish = |(answer, provider): (Option<_>, &Arc<dyn ClusterProvider>)| {
        answer.unwrap_or_else(|| Err(named(ProvisioningError::new(code, CHECKING, reason.clone()), provider.as_ref())))
    };
    answers.into_iter().zip(providers).map(finish).collect()
}

fn check_one(provider: &dyn ClusterProvider, stop: &CancelToken) -> Result<(), ProvisioningError> {
    let outcome = caught(|| provider.check_connectivity(stop)).unwrap_or_else(|panic| {
        Err(ProvisioningError::new(ErrorCode::ProviderPanicked, CHECKING, format!("it panicked: {panic}")))
    });
    outcome.map_err(|error| named(error, provider))
}

/// The error with the provider's id, unless it names one already.
fn named(error: ProvisioningError, provider: &dyn ClusterProvider) -> ProvisioningError {
    match id_of(provider) {
        Some(id) => with_id(error, &id),
        None => error,
    }
}

/// The provider's id; `None` if asking for it panics.
fn id_of(provider: &dyn ClusterProvider) -> Option<ProviderId> {
    caught(|| provider.descriptor().id.clone()).ok()
}

/// The error with this id, unless it names one already.
pub(super) fn with_id(error: ProvisioningError, id: &ProviderId) -> ProvisioningError {
    if error.provider().is_some() { error } else { error.with_provider(id) }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Check, Scripted};
    use super::*;

    fn providers(checks: impl IntoIterator<Item = Check>) -> Vec<Arc<dyn ClusterProvider>> {
        let provider = |(index, check)| Scripted::new(&format!("p{index}")).check(check).provider();
        checks.into_iter().enumerate().map(provider).collect()
    }

    fn codes(answers: &[Result<(), ProvisioningError>]) -> Vec<Option<ErrorCode>> {
        answers.iter().map(|answer| answer.as_ref().err().map(ProvisioningError::code)).collect()
    }

    #[test]
    fn p1_4_each_provider_gets_its_own_answer_in_order() {
        let providers = providers([Check::Fine, Check::Refused, Check::Panics, Check::Fine]);
        let answers = check_connectivity(&providers, Duration::from_secs(60), &CancelToken::new());
        assert_eq!(
            codes(&answers),
            [None, Some(ErrorCode::BackendUnavailable), Some(ErrorCode::ProviderPanicked), None]
        );
        for (index, answer) in answers.iter().enumerate().filter(|(_, answer)| answer.is_err()) {
            let error = answer.as_ref().unwrap_err();
            assert_eq!(error.provider().map(ProviderId::as_str), Some(format!("p{index}").as_str()), "{error}");
        }
        assert!(check_connectivity(&[], Duration::from_secs(60), &CancelToken::new()).is_empty());
    }

    #[test]
    fn p1_4_all_are_checked_at_the_same_time() {
        // Each waits until all four have begun: one after the other they would never end.
        let barrier = Arc::new(std::sync::Barrier::new(4));
        let providers = providers((0..4).map(|_| Check::Meets(Arc::clone(&barrier))));
        let answers = check_connectivity(&providers, Duration::from_secs(60), &CancelToken::new());
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    }

    #[test]
    fn p1_4_who_does_not_answer_in_time_is_told_to_end_and_left_behind_if_it_does_not() {
        let (ended, ends) = bounded(1);
        let (hold, held) = bounded::<()>(0);
        let providers = providers([Check::Fine, Check::UntilCancelled(ended), Check::Ignores(held)]);
        let answers = check_connectivity(&providers, Duration::from_secs(1), &CancelToken::new());
        assert_eq!(codes(&answers), [None, Some(ErrorCode::Timeout), Some(ErrorCode::Timeout)]);
        assert_eq!(answers[2].as_ref().unwrap_err().provider().map(ProviderId::as_str), Some("p2"));
        assert_eq!(ends.recv_timeout(Duration::from_secs(60)), Ok(()), "the token fired");
        drop(hold);
    }

    #[test]
    fn p1_4_a_check_can_be_called_off_from_outside() {
        let (ended, ends) = bounded(1);
        let cancel = CancelToken::new();
        cancel.cancel();
        let answers = check_connectivity(&providers([Check::UntilCancelled(ended)]), Duration::from_secs(60), &cancel);
        assert_eq!(codes(&answers), [Some(ErrorCode::Stopped)]);
        assert_eq!(ends.recv_timeout(Duration::from_secs(60)), Ok(()));
    }
}
