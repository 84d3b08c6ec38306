//! A provider's stream on a thread of its own, as the service would run it, with its events on a channel.
//!
//! Each test file uses its share of it.
#![allow(dead_code)]

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cluster_provisioning::{
    CancelToken, ClusterNode, ClusterProvider, ConsulFactory, ErrorCode, ProviderDescriptor, ProviderEnvironment,
    ProviderEvent, ProviderFactory, ProvisioningError, Registration, Secret, Secrets, SystemClock,
};
use crossbeam_channel::{Receiver, unbounded};

pub fn provider(descriptor: &ProviderDescriptor) -> Arc<dyn ClusterProvider> {
    provider_of(descriptor, None)
}

/// What a provider for the service of `local_node` is made with, in member mode if there is one.
pub fn environment(local_node: Option<ClusterNode>) -> ProviderEnvironment {
    ProviderEnvironment::new(SystemClock::shared())
        .secrets(Secrets::new([("consul".to_owned(), Secret::new(TOKEN))]))
        .local_node(local_node.map(Arc::new))
}

/// A provider for the service of `local_node`, in member mode if there is one.
pub fn provider_of(descriptor: &ProviderDescriptor, local_node: Option<ClusterNode>) -> Arc<dyn ClusterProvider> {
    ConsulFactory.validate(descriptor).unwrap();
    ConsulFactory.create(descriptor, &environment(local_node)).unwrap()
}

/// Registers the node through the provider.
pub fn join(provider: &dyn ClusterProvider, node: &ClusterNode) -> Result<Box<dyn Registration>, ProvisioningError> {
    let mut registration = provider.registration(node)?;
    registration.join(&CancelToken::new())?;
    Ok(registration)
}

/// The value of the secret named `consul`.
pub const TOKEN: &str = "b1gs3cr3t-0000-1111";

pub struct Watching {
    pub events: Receiver<(Instant, ProviderEvent)>,
    pub cancel: CancelToken,
    thread: Option<JoinHandle<()>>,
}

impl Watching {
    pub fn start(provider: &Arc<dyn ClusterProvider>) -> Self {
        let (sender, events) = unbounded();
        let cancel = CancelToken::new();
        let (provider, token) = (Arc::clone(provider), cancel.clone());
        let thread = std::thread::spawn(move || {
            let mut stream = provider.watch(&token).unwrap();
            loop {
                let event = stream.next();
                let end = matches!(event, ProviderEvent::Terminated(_));
                if sender.send((Instant::now(), event)).is_err() || end {
                    return;
                }
            }
        });
        Self { events, cancel, thread: Some(thread) }
    }

    /// Waits for an event of which `wanted` makes something; panics, listing what came instead, after `within`.
    pub fn expect<T>(&self, what: &str, within: Duration, mut wanted: impl FnMut(&ProviderEvent) -> Option<T>) -> T {
        let deadline = Instant::now() + within;
        let mut seen = Vec::new();
        while let Ok((_, event)) = self.events.recv_deadline(deadline) {
            if let Some(found) = wanted(&event) {
                return found;
            }
            seen.push(event);
        }
        panic!("no {what} within {within:?}; instead: {seen:#?}");
    }

    /// Waits for a snapshot of exactly these members.
    pub fn expect_members(&self, ids: &[&str], within: Duration) -> Instant {
        self.expect(&format!("snapshot of {ids:?}"), within, |event| match event {
            ProviderEvent::Snapshot { members, .. } => {
                members.iter().map(|node| node.id().as_str()).eq(ids.iter().copied()).then(Instant::now)
            }
            _ => None,
        })
    }

    pub fn expect_error(&self, code: ErrorCode, within: Duration) -> cluster_provisioning::ProvisioningError {
        self.expect(&format!("error {code}"), within, |event| match event {
            ProviderEvent::Degraded { error } if error.code() == code => Some(error.clone()),
            _ => None,
        })
    }

    pub fn expect_current(&self, within: Duration) {
        self.expect("refresh", within, |event| {
            matches!(event, ProviderEvent::Heartbeat { current: true }).then_some(())
        });
    }

    /// Follows the stream until that holds; panics at anything but heartbeats.
    pub fn in_peace_until(&self, what: &str, within: Duration, holds: impl Fn(&ProviderEvent) -> bool) {
        self.expect(what, within, |event| match event {
            ProviderEvent::Heartbeat { .. } => holds(event).then_some(()),
            other => panic!("{other:?}"),
        });
    }

    /// Stops the stream and returns how long that took.
    pub fn stop(&mut self) -> Duration {
        let start = Instant::now();
        self.cancel.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
        start.elapsed()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}
