//! Member mode with a provider whose registrations are scripted: when they are renewed, lost and made anew.

use std::sync::Arc;
use std::time::Duration;

use cluster_provisioning::*;
use crossbeam_channel::{Receiver, Sender, never, unbounded};

/// Far longer than anything here takes; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);
/// An interval that never comes.
const NEVER: Duration = Duration::from_secs(3600);

/// What the service asked of the provider's registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Join,
    Renew,
    Leave,
    Retire,
}

type Answer = Result<(), ProvisioningError>;

/// How a registration behaves: it reports what it is asked, answers as told, else that all went well, and asks for
/// renewals when told.
#[derive(Clone)]
struct Script {
    asked: Sender<Asked>,
    early: Receiver<()>,
    joins: Receiver<Answer>,
    renewals: Receiver<Answer>,
    leaves: Receiver<Answer>,
}

/// A provider whose registration behaves so.
struct Desk {
    descriptor: ProviderDescriptor,
    script: Script,
}

struct Held(Script);

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

    fn registration(&self, _: &ClusterNode) -> Result<Box<dyn Registration>, ProvisioningError> {
        Ok(Box::new(Held(self.script.clone())))
    }
}

impl Registration for Held {
    fn join(&mut self, _: &CancelToken) -> Result<(), ProvisioningError> {
        self.0.asked.send(Asked::Join).unwrap();
        self.0.joins.try_recv().unwrap_or(Ok(()))
    }

    fn renew_interval(&self) -> Duration {
        NEVER
    }

    fn early_renewal(&self) -> Receiver<()> {
        self.0.early.clone()
    }

    fn renew(&mut self, _: &CancelToken) -> Result<(), ProvisioningError> {
        self.0.asked.send(Asked::Renew).unwrap();
        self.0.renewals.try_recv().unwrap_or(Ok(()))
    }

    fn leave(&mut self, _: Duration) -> Result<(), ProvisioningError> {
        // Whoever asks when the test is over is not heard.
        _ = self.0.asked.send(Asked::Leave);
        self.0.leaves.try_recv().unwrap_or(Ok(()))
    }

    fn retire(&mut self, _: Duration) -> Result<(), ProvisioningError> {
        self.0.asked.send(Asked::Retire).unwrap();
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

struct Desks(Script);

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
        let node = environment.local_node.get().expect("member mode");
        assert_eq!((node.id().as_str(), node.incarnation()), ("n1", 7), "the whole node is handed over");
        Ok(Arc::new(Desk { descriptor: descriptor.clone(), script: self.0.clone() }))
    }
}

struct Scene {
    service: ClusterProvisioningService,
    asked: Receiver<Asked>,
    ask_early: Sender<()>,
    answer: Sender<Answer>,
    answer_leaving: Sender<Answer>,
}

fn definition() -> ProviderDescriptor {
    ProviderDescriptor::new("a", ProviderKind::new("desk").unwrap()).unwrap()
}

fn builder(script: Script) -> ServiceBuilder {
    let node = ClusterNode::builder("n1", "10.0.0.1", 8090).incarnation(7).build().unwrap();
    ClusterProvisioningService::builder().factory(Arc::new(Desks(script))).provider(definition()).member(node)
}

fn start() -> Scene {
    let ((asking, asked), (ask_early, early), (answer, renewals)) = (unbounded(), unbounded(), unbounded());
    let (answer_leaving, leaves) = unbounded();
    let service = builder(Script { asked: asking, early, joins: never(), renewals, leaves }).start().unwrap();
    assert_eq!(asked.recv_timeout(PATIENCE), Ok(Asked::Join));
    Scene { service, asked, ask_early, answer, answer_leaving }
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

#[test]
fn consul_point_19_a_node_whose_registration_was_never_answered_is_deregistered_all_the_same() {
    let ((asking, asked), (answer, joins)) = (unbounded(), unbounded());
    for _ in 0..100 {
        answer.send(Err(ProvisioningError::new(ErrorCode::Timeout, "testing", "no answer"))).unwrap();
    }
    let builder = builder(Script { asked: asking, early: never(), joins, renewals: never(), leaves: never() });
    let error = builder.join_timeout(Duration::from_millis(100)).start().err().unwrap();
    assert_eq!(error.code(), ErrorCode::RegistrationFailed);
    assert_eq!(error.advice(), ErrorCode::Timeout.advice(), "what is to be done about its cause: {error}");
    let asked: Vec<_> = asked.iter().take_while(|asked| *asked != Asked::Leave).collect();
    assert!(asked.iter().all(|asked| *asked == Asked::Join), "{asked:?}");
}

#[test]
fn consul_point_19_the_registration_of_an_edited_definition_makes_the_former_one_retire() {
    let scene = start();
    scene.service.reload(vec![definition().parameter("wait", "5m")]).unwrap();
    let mut both = [(); 2].map(|()| scene.asked.recv_timeout(PATIENCE).unwrap());
    both.sort_by_key(|asked| *asked as u8);
    assert_eq!(both, [Asked::Join, Asked::Retire]);
    scene.service.reload(vec![definition().parameter("wait", "5m").priority(1)]).unwrap();
    scene.service.shutdown();
    assert_eq!(scene.asked.iter().last(), Some(Asked::Leave));
}

#[test]
fn p3_5_while_draining_a_backend_that_is_away_is_asked_again_and_one_that_refuses_is_not() {
    for (code, asked) in [(ErrorCode::BackendUnavailable, 3), (ErrorCode::Timeout, 3), (ErrorCode::AccessDenied, 1)] {
        let scene = start();
        for _ in 0..2 {
            scene.answer_leaving.send(Err(ProvisioningError::new(code, "testing", "not now"))).unwrap();
        }
        let drained = scene.service.drain();
        assert_eq!(drained.err().map(|error| error.code()), Some(code).filter(|_| asked == 1), "{code}");
        drop(scene.service);
        assert_eq!(scene.asked.iter().filter(|step| *step == Asked::Leave).count(), asked, "{code}");
    }
}
