//! Member mode with a provider whose registrations are scripted: when they are renewed, lost and made anew.

use std::sync::Arc;
use std::time::Duration;

use cluster_provisioning::*;
use crossbeam_channel::{Receiver, Sender, unbounded};

/// Far longer than anything here takes; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);
/// An interval that never comes.
const NEVER: Duration = Duration::from_secs(3600);

/// What the service asked of the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Join,
    Renew,
    Leave,
}

/// A provider that reports what it is asked, renews as told, and asks for renewals when told.
struct Desk {
    descriptor: ProviderDescriptor,
    asked: Sender<Asked>,
    early: Receiver<()>,
    renewals: Receiver<Result<(), ProvisioningError>>,
}

struct Held {
    asked: Sender<Asked>,
    early: Receiver<()>,
    renewals: Receiver<Result<(), ProvisioningError>>,
}

impl ClusterProvider for Desk {
    fn descriptor(&self) -> &ProviderDescriptor {
        &self.descriptor
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::WATCH_AND_REGISTER
    }

    fn refresh_interval(&self) -> Option<Duration> {
        None
    }

    fn check_connectivity(&self, _: &CancelToken) -> Result<(), ProvisioningError> {
        Ok(())
    }

    fn watch(&self, cancel: &CancelToken) -> Result<Box<dyn ProviderStream>, ProvisioningError> {
        Ok(Box::new(Quiet(cancel.clone())))
    }

    fn join(&self, _: &ClusterNode, _: &CancelToken) -> Result<Box<dyn Registration>, ProvisioningError> {
        self.asked.send(Asked::Join).unwrap();
        let (asked, early, renewals) = (self.asked.clone(), self.early.clone(), self.renewals.clone());
        Ok(Box::new(Held { asked, early, renewals }))
    }
}

impl Registration for Held {
    fn renew_interval(&self) -> Duration {
        NEVER
    }

    fn early_renewal(&self) -> Receiver<()> {
        self.early.clone()
    }

    fn renew(&mut self, _: &CancelToken) -> Result<(), ProvisioningError> {
        self.asked.send(Asked::Renew).unwrap();
        self.renewals.try_recv().unwrap_or(Ok(()))
    }

    fn leave(&mut self, _: Duration) -> Result<(), ProvisioningError> {
        self.asked.send(Asked::Leave).unwrap();
        Ok(())
    }
}

struct Quiet(CancelToken);

impl ProviderStream for Quiet {
    fn next(&mut self) -> ProviderEvent {
        match self.0.wait(Duration::from_secs(4)) {
            true => ProviderEvent::Terminated(ProviderTermination::Ended),
            false => ProviderEvent::Heartbeat { current: false },
        }
    }
}

struct Desks {
    asked: Sender<Asked>,
    early: Receiver<()>,
    renewals: Receiver<Result<(), ProvisioningError>>,
}

impl ProviderFactory for Desks {
    fn kind(&self) -> ProviderKind {
        ProviderKind::new("desk").unwrap()
    }

    fn validate(&self, _: &ProviderDescriptor) -> Result<(), ProvisioningError> {
        Ok(())
    }

    fn create(
        &self,
        descriptor: &ProviderDescriptor,
        environment: &ProviderEnvironment,
    ) -> Result<Arc<dyn ClusterProvider>, ProvisioningError> {
        let node = environment.local_node.as_ref().expect("member mode");
        assert_eq!((node.id().as_str(), node.incarnation()), ("n1", 7), "the whole node is handed over");
        let (asked, early, renewals) = (self.asked.clone(), self.early.clone(), self.renewals.clone());
        Ok(Arc::new(Desk { descriptor: descriptor.clone(), asked, early, renewals }))
    }
}

struct Scene {
    service: ClusterProvisioningService,
    asked: Receiver<Asked>,
    ask_early: Sender<()>,
    answer: Sender<Result<(), ProvisioningError>>,
}

fn start() -> Scene {
    let ((asking, asked), (ask_early, early), (answer, renewals)) = (unbounded(), unbounded(), unbounded());
    let node = ClusterNode::builder("n1", "10.0.0.1", 8090).incarnation(7).build().unwrap();
    let service = ClusterProvisioningService::builder()
        .factory(Arc::new(Desks { asked: asking, early, renewals }))
        .provider(ProviderDescriptor::new("a", ProviderKind::new("desk").unwrap()).unwrap())
        .member(node)
        .start()
        .unwrap();
    assert_eq!(asked.recv_timeout(PATIENCE), Ok(Asked::Join));
    Scene { service, asked, ask_early, answer }
}

#[test]
fn consul_point_18_a_provider_may_ask_for_a_renewal_before_the_interval_is_over() {
    let scene = start();
    for _ in 0..3 {
        scene.ask_early.send(()).unwrap();
        assert_eq!(scene.asked.recv_timeout(PATIENCE), Ok(Asked::Renew));
    }
    scene.service.shutdown();
    assert_eq!(scene.asked.recv_timeout(PATIENCE), Ok(Asked::Leave));
}

#[test]
fn consul_point_18_a_registration_that_is_lost_for_good_is_made_anew_and_another_failure_is_only_retried() {
    let scene = start();
    let fail = |code| scene.answer.send(Err(ProvisioningError::new(code, "testing", "lost"))).unwrap();
    fail(ErrorCode::BackendUnavailable);
    scene.ask_early.send(()).unwrap();
    assert_eq!(scene.asked.recv_timeout(PATIENCE), Ok(Asked::Renew));
    fail(ErrorCode::RegistrationFailed);
    // By itself, after the pause that follows a failure.
    assert_eq!(scene.asked.recv_timeout(PATIENCE), Ok(Asked::Renew));
    assert_eq!(scene.asked.recv_timeout(PATIENCE), Ok(Asked::Join));
    scene.service.shutdown();
    assert_eq!(scene.asked.recv_timeout(PATIENCE), Ok(Asked::Leave));
}

#[test]
fn a_provider_that_can_no_longer_ask_is_renewed_by_the_interval_and_stops_promptly() {
    let Scene { service, asked, ask_early, .. } = start();
    drop(ask_early);
    service.shutdown();
    assert_eq!(asked.recv_timeout(PATIENCE), Ok(Asked::Leave), "no renewal in a hot loop, and no hour's wait");
}
