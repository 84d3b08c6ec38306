//! A Kubernetes provider's stream on a thread of its own, as the service would run it, with what it amounts to.
//!
//! Each test file uses its share of it.
#![allow(dead_code)]

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cluster_provisioning::{
    CancelToken, ClusterNode, ClusterProvider, ErrorCode, KubernetesFactory, MemberChange, ProviderDescriptor,
    ProviderEnvironment, ProviderEvent, ProviderFactory, ProvisioningError, Registration, Secrets, SystemClock,
};
use crossbeam_channel::{Receiver, unbounded};

pub fn provider(descriptor: &ProviderDescriptor, secrets: Secrets) -> Arc<dyn ClusterProvider> {
    provider_of(descriptor, secrets, None)
}

/// What a provider is made with, in member mode if there is a local node.
pub fn environment(secrets: Secrets, local_node: Option<ClusterNode>) -> ProviderEnvironment {
    ProviderEnvironment::new(SystemClock::shared()).secrets(secrets).local_node(local_node.map(Arc::new))
}

/// In member mode if there is a local node.
pub fn provider_of(
    descriptor: &ProviderDescriptor,
    secrets: Secrets,
    local_node: Option<ClusterNode>,
) -> Arc<dyn ClusterProvider> {
    KubernetesFactory.validate(descriptor).unwrap();
    KubernetesFactory.create(descriptor, &environment(secrets, local_node)).unwrap()
}

/// Registers the node through the provider.
pub fn join(provider: &dyn ClusterProvider, node: &ClusterNode) -> Result<Box<dyn Registration>, ProvisioningError> {
    let mut registration = provider.registration(node)?;
    registration.join(&CancelToken::new())?;
    Ok(registration)
}

pub struct Watching {
    events: Receiver<ProviderEvent>,
    cancel: CancelToken,
    thread: Option<JoinHandle<()>>,
    /// The members by what has been reported.
    members: RefCell<BTreeMap<String, Arc<ClusterNode>>>,
    /// Everybody who was ever among them.
    shown: RefCell<BTreeSet<String>>,
    skipped: Cell<usize>,
    /// Everybody who was, and then was not.
    left: RefCell<BTreeSet<String>>,
    told: RefCell<Told>,
}

/// What else has been reported, as far as events have been looked at.
#[derive(Clone, Debug, Default)]
pub struct Told {
    pub snapshots: usize,
    /// Events with changes.
    pub changes: usize,
    /// The version of the members.
    pub version: String,
    /// Of every error.
    pub codes: Vec<ErrorCode>,
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
                if sender.send(event).is_err() || end {
                    return;
                }
            }
        });
        Self {
            events,
            cancel,
            thread: Some(thread),
            members: RefCell::default(),
            shown: RefCell::default(),
            skipped: Cell::default(),
            left: RefCell::default(),
            told: RefCell::default(),
        }
    }

    fn take(&self, event: &ProviderEvent) {
        let (mut known, mut told) = (self.members.borrow_mut(), self.told.borrow_mut());
        let before: Vec<_> = known.keys().cloned().collect();
        match event {
            ProviderEvent::Snapshot { members, revision, skipped } => {
                self.skipped.set(self.skipped.get() + skipped);
                (told.snapshots, told.version) = (told.snapshots + 1, revision.as_str().unwrap_or_default().to_owned());
                *known = members.iter().map(|node| (node.id().to_string(), Arc::clone(node))).collect();
            }
            ProviderEvent::Changes { changes, revision } => {
                (told.changes, told.version) = (told.changes + 1, revision.as_str().unwrap_or_default().to_owned());
                for change in changes {
                    match change {
                        MemberChange::Upsert(node) => drop(known.insert(node.id().to_string(), Arc::clone(node))),
                        MemberChange::Remove(id) => {
                            known.remove(id.as_str());
                            self.left.borrow_mut().insert(id.to_string());
                        }
                    }
                }
            }
            ProviderEvent::Degraded { error } => told.codes.push(error.code()),
            _ => return,
        }
        self.shown.borrow_mut().extend(known.keys().cloned());
        self.left.borrow_mut().extend(before.into_iter().filter(|id| !known.contains_key(id)));
    }

    /// What has been reported by now.
    pub fn told(&self) -> Told {
        while let Ok(event) = self.events.try_recv() {
            self.take(&event);
        }
        self.told.borrow().clone()
    }

    /// The members are these, and nobody but these ever left.
    pub fn assert_kept(&self, ids: &[&str], left: &[&str]) {
        self.told();
        assert!(self.members.borrow().keys().eq(ids), "{:?} instead of {ids:?}", self.members.borrow().keys());
        assert!(self.left.borrow().iter().eq(left), "{:?} left, not {left:?}", self.left.borrow());
    }

    /// Whether the member was ever reported, as far as events have been looked at.
    pub fn ever_showed(&self, id: &str) -> bool {
        self.shown.borrow().contains(id)
    }

    /// How much was counted as unusable, as far as events have been looked at.
    pub fn skipped(&self) -> usize {
        self.skipped.get()
    }

    /// Whether the member is reported, as far as events have been looked at.
    pub fn has(&self, id: &str) -> bool {
        self.members.borrow().contains_key(id)
    }

    /// Waits until the member was reported to be gone, and is there again, since the last time that this was waited for.
    pub fn expect_return(&self, id: &str, within: Duration) {
        let is_back = |_: &ProviderEvent| (self.left.borrow().contains(id) && self.has(id)).then_some(());
        self.expect(&format!("return of {id}"), within, is_back);
        self.left.borrow_mut().remove(id);
    }

    /// Waits until the member was reported to be gone, and forgets that it was there.
    pub fn expect_departure(&self, id: &str, within: Duration) {
        self.expect(&format!("departure of {id}"), within, |_| self.left.borrow().contains(id).then_some(()));
        self.left.borrow_mut().remove(id);
    }

    /// Waits for an event of which `wanted` makes something; panics, listing what came instead, after `within`.
    pub fn expect<T>(&self, what: &str, within: Duration, mut wanted: impl FnMut(&ProviderEvent) -> Option<T>) -> T {
        let deadline = Instant::now() + within;
        let mut seen = Vec::new();
        while let Ok(event) = self.events.recv_deadline(deadline) {
            self.take(&event);
            if let Some(found) = wanted(&event) {
                return found;
            }
            seen.push(event);
        }
        panic!("no {what} within {within:?}; instead: {seen:#?}");
    }

    /// Whether the members are exactly these, as far as events have been looked at.
    pub fn shows(&self, ids: &[&str]) -> bool {
        self.members.borrow().keys().map(String::as_str).eq(ids.iter().copied())
    }

    /// Waits until the members are exactly these.
    pub fn expect_members(&self, ids: &[&str], within: Duration) {
        let are_these = || self.shows(ids);
        let is_set = |event: &ProviderEvent| {
            matches!(event, ProviderEvent::Snapshot { .. } | ProviderEvent::Changes { .. }) && are_these()
        };
        if ids.is_empty() || !are_these() {
            self.expect(&format!("members {ids:?}"), within, |event| is_set(event).then_some(()));
        }
    }

    /// Waits until the node is among the members, as it is.
    pub fn expect_node(&self, node: &ClusterNode, within: Duration) {
        let is_there = || self.members.borrow().get(node.id().as_str()).is_some_and(|shown| **shown == *node);
        if !is_there() {
            self.expect(&format!("{node:?}"), within, |_| is_there().then_some(()));
        }
    }

    pub fn expect_error(&self, code: ErrorCode, within: Duration) -> ProvisioningError {
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
