//! Providers and a factory that do as a test says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use super::ProviderValidator;
use crate::clock::SystemClock;
use crate::error::{ErrorCode, ProvisioningError};
use crate::id::{ProviderId, ProviderKind};
use crate::provider::{
    CancelToken, Capabilities, ClusterProvider, LocalNode, ProviderDescriptor, ProviderEnvironment, ProviderFactory,
    ProviderStream,
};
use crate::secret::{Secret, Secrets};

/// What a provider's connectivity check does.
pub(crate) enum Check {
    Fine,
    Refused,
    Panics,
    /// Waits until as many as the barrier asks for have begun.
    Meets(Arc<Barrier>),
    /// Waits for the token, and says so when it fired.
    UntilCancelled(Sender<()>),
    /// Waits for the channel to close, whatever the token says.
    Ignores(Receiver<()>),
    /// Fine unless the id is in the set; each check is noted.
    Backends(Arc<Backends>),
}

/// Which backends are down, and who was checked and made.
#[derive(Default)]
pub(crate) struct Backends {
    pub(crate) down: Mutex<BTreeSet<String>>,
    pub(crate) checked: Mutex<Vec<String>>,
    pub(crate) made: Mutex<Vec<String>>,
    /// Whose definitions the factory refuses, whatever they say.
    pub(crate) refused: Mutex<BTreeSet<String>>,
}

impl Backends {
    /// From now on exactly these are down.
    pub(crate) fn down(&self, ids: &[&str]) {
        *self.down.lock().unwrap() = ids.iter().map(|id| (*id).to_owned()).collect();
    }

    /// Who was checked since the last call, sorted.
    pub(crate) fn take_checked(&self) -> Vec<String> {
        let mut checked = std::mem::take(&mut *self.checked.lock().unwrap());
        checked.sort();
        checked
    }

    /// Who was made since the last call, in order.
    pub(crate) fn take_made(&self) -> Vec<String> {
        std::mem::take(&mut *self.made.lock().unwrap())
    }
}

pub(crate) struct Scripted {
    descriptor: ProviderDescriptor,
    capabilities: Capabilities,
    check: Check,
}

impl Scripted {
    pub(crate) fn new(id: &str) -> Self {
        Self { descriptor: definition(id), capabilities: Capabilities::WATCH, check: Check::Fine }
    }

    pub(crate) fn check(mut self, check: Check) -> Self {
        self.check = check;
        self
    }

    pub(crate) fn provider(self) -> Arc<dyn ClusterProvider> {
        Arc::new(self)
    }
}

impl ClusterProvider for Scripted {
    fn descriptor(&self) -> &ProviderDescriptor {
        &self.descriptor
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn refresh_interval(&self) -> Option<Duration> {
        None
    }

    fn check_connectivity(&self, cancel: &CancelToken) -> Result<(), ProvisioningError> {
        let refused = || ProvisioningError::new(ErrorCode::BackendUnavailable, "connecting", "connection refused");
        match &self.check {
            Check::Fine => Ok(()),
            Check::Refused => Err(refused()),
            Check::Panics => panic!("a scripted panic"),
            Check::Meets(barrier) => {
                barrier.wait();
                Ok(())
            }
            Check::UntilCancelled(ended) => {
                cancel.wait(Duration::from_secs(600));
                ended.send(()).unwrap();
                Ok(())
            }
            Check::Ignores(held) => {
                let _ = held.recv_timeout(Duration::from_secs(600));
                Ok(())
            }
            Check::Backends(backends) => {
                let id = self.descriptor.id.as_str().to_owned();
                let down = backends.down.lock().unwrap().contains(&id);
                backends.checked.lock().unwrap().push(id);
                if down { Err(refused()) } else { Ok(()) }
            }
        }
    }

    fn watch(&self, _: &CancelToken) -> Result<Box<dyn ProviderStream>, ProvisioningError> {
        Err(ProvisioningError::new(ErrorCode::Unsupported, "watching", "scripted providers do not watch"))
    }
}

/// Makes [`Scripted`] providers. Parameters: `service` (required), `watch` = `no`, `panic` = `validate` or `create`,
/// `rename` = another id.
pub(crate) struct ScriptedFactory(pub(crate) Arc<Backends>);

impl ProviderFactory for ScriptedFactory {
    fn kind(&self) -> ProviderKind {
        ProviderKind::new("scripted").unwrap()
    }

    fn validate(&self, descriptor: &ProviderDescriptor) -> Result<(), ProvisioningError> {
        assert!(descriptor.parameters.get("panic").is_none_or(|at| at != "validate"), "a scripted panic");
        if self.0.refused.lock().unwrap().contains(descriptor.id.as_str()) {
            return Err(descriptor.refuse(ErrorCode::InvalidConfig, "id", "a scripted refusal"));
        }
        descriptor.required("service")?;
        descriptor.only_parameters(&["service", "watch", "panic", "rename"])
    }

    fn create(
        &self,
        descriptor: &ProviderDescriptor,
        _: &ProviderEnvironment,
    ) -> Result<Arc<dyn ClusterProvider>, ProvisioningError> {
        assert!(descriptor.parameters.get("panic").is_none_or(|at| at != "create"), "a scripted panic");
        let mut made = descriptor.clone();
        if let Some(id) = descriptor.parameters.get("rename") {
            made.id = ProviderId::new(id).unwrap();
        }
        self.0.made.lock().unwrap().push(made.id.as_str().to_owned());
        let watch = descriptor.parameters.get("watch").is_none_or(|watch| watch != "no");
        Ok(Arc::new(Scripted {
            descriptor: made,
            capabilities: Capabilities { watch, register: false },
            check: Check::Backends(Arc::clone(&self.0)),
        }))
    }
}

/// A definition that the scripted factory accepts.
pub(crate) fn definition(id: &str) -> ProviderDescriptor {
    ProviderDescriptor::new(id, ProviderKind::new("scripted").unwrap()).unwrap().parameter("service", "orders")
}

/// A validator that knows the kind `scripted` and the secret `consul`.
pub(crate) fn validator() -> (ProviderValidator, Arc<Backends>) {
    let backends = Arc::new(Backends::default());
    let factory: Arc<dyn ProviderFactory> = Arc::new(ScriptedFactory(Arc::clone(&backends)));
    let environment = ProviderEnvironment {
        clock: SystemClock::shared(),
        secrets: Secrets::new([("consul".to_owned(), Secret::new("hunter2"))]),
        local_node: LocalNode::default(),
        retry: crate::provider::RetryPolicy::default(),
        exclusions: crate::provider::Exclusions::default(),
    };
    (ProviderValidator::new(BTreeMap::from([(factory.kind(), factory)]), environment), backends)
}
