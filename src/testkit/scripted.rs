//! A provider whose streams say what a test tells them to.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, select, unbounded};

use crate::error::ProvisioningError;
use crate::id::ProviderKind;
use crate::provider::{
    CancelToken, Capabilities, ClusterProvider, ProviderDescriptor, ProviderEnvironment, ProviderEvent,
    ProviderFactory, ProviderStream, ProviderTermination,
};
use crate::topology::{Members, Revision};

/// A provider whose streams say what a test tells them to, when it tells them. Clones are the same provider.
#[derive(Clone)]
pub struct ScriptedProvider {
    descriptor: Arc<ProviderDescriptor>,
    capabilities: Capabilities,
    state: Arc<Mutex<State>>,
}

struct State {
    /// What the next stream says first.
    backlog: VecDeque<ProviderEvent>,
    stream: Option<Sender<ProviderEvent>>,
    refusal: Option<ProvisioningError>,
    opened: usize,
    refresh_interval: Option<Duration>,
}

impl ScriptedProvider {
    /// A provider that can watch, says nothing, and lets itself be reached.
    pub fn new(descriptor: ProviderDescriptor) -> Self {
        let state = State { backlog: VecDeque::new(), stream: None, refusal: None, opened: 0, refresh_interval: None };
        Self { descriptor: Arc::new(descriptor), capabilities: Capabilities::WATCH, state: Arc::new(Mutex::new(state)) }
    }

    /// The same, with other capabilities.
    #[must_use]
    pub fn with_capabilities(mut self, capabilities: Capabilities) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// The refresh interval that it declares from here on. Default: none.
    pub fn declare_refresh_interval(&self, interval: Option<Duration>) {
        self.state().refresh_interval = interval;
    }

    /// Says something, now or as soon as a stream is open.
    pub fn say(&self, event: ProviderEvent) {
        let mut state = self.state();
        // What is said after an end is for the next stream, also while the old one is still being put away.
        let stream = if is_end(&event) { state.stream.take() } else { state.stream.clone() };
        let unsaid = match stream {
            Some(stream) => stream.send(event).err().map(|unsent| unsent.into_inner()),
            None => Some(event),
        };
        state.backlog.extend(unsaid);
    }

    /// Says a whole set of members.
    pub fn show(&self, members: Members) {
        self.say(ProviderEvent::Snapshot { members, revision: Revision::NONE, skipped: 0 });
    }

    /// Ends the present stream.
    pub fn end(&self) {
        self.say(ProviderEvent::Terminated(ProviderTermination::Ended));
    }

    /// Refuses connectivity checks and streams with this error from here on, or no longer.
    pub fn refuse(&self, error: Option<ProvisioningError>) {
        self.state().refusal = error;
    }

    /// How many streams have been opened.
    pub fn opened(&self) -> usize {
        self.state().opened
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClusterProvider for ScriptedProvider {
    fn descriptor(&self) -> &ProviderDescriptor {
        &self.descriptor
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn refresh_interval(&self) -> Option<Duration> {
        self.state().refresh_interval
    }

    fn check_connectivity(&self, _cancel: &CancelToken) -> Result<(), ProvisioningError> {
        self.state().refusal.clone().map_or(Ok(()), Err)
    }

    fn watch(&self, cancel: &CancelToken) -> Result<Box<dyn ProviderStream>, ProvisioningError> {
        let mut state = self.state();
        if let Some(refusal) = &state.refusal {
            return Err(refusal.clone());
        }
        let (sender, events) = unbounded();
        let end = state.backlog.iter().position(is_end);
        let now = end.map_or(state.backlog.len(), |end| end + 1);
        for event in state.backlog.drain(..now) {
            // The receiver is right here.
            _ = sender.send(event);
        }
        state.stream = end.is_none().then_some(sender);
        state.opened += 1;
        Ok(Box::new(ScriptedStream { events, cancel: cancel.clone() }))
    }
}

fn is_end(event: &ProviderEvent) -> bool {
    matches!(event, ProviderEvent::Terminated(_))
}

struct ScriptedStream {
    events: Receiver<ProviderEvent>,
    cancel: CancelToken,
}

impl ProviderStream for ScriptedStream {
    fn next(&mut self) -> ProviderEvent {
        select! {
            recv(self.events) -> event => event.unwrap_or(ProviderEvent::Terminated(ProviderTermination::Ended)),
            recv(self.cancel.receiver()) -> _ => ProviderEvent::Terminated(ProviderTermination::Ended),
        }
    }
}

/// Hands out scripted providers by the ids of their descriptors.
pub struct ScriptedFactory {
    kind: ProviderKind,
    providers: Mutex<Vec<ScriptedProvider>>,
}

impl ScriptedFactory {
    /// A factory for the kind.
    pub fn new(kind: ProviderKind) -> Arc<Self> {
        Arc::new(Self { kind, providers: Mutex::default() })
    }

    /// Hands out this provider for descriptors with its id, instead of a new one.
    pub fn add(&self, provider: ScriptedProvider) {
        self.providers().push(provider);
    }

    /// The provider of that id, once it was made or added.
    pub fn provider(&self, id: &str) -> Option<ScriptedProvider> {
        self.providers().iter().rev().find(|provider| provider.descriptor.id.as_str() == id).cloned()
    }

    fn providers(&self) -> MutexGuard<'_, Vec<ScriptedProvider>> {
        self.providers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProviderFactory for ScriptedFactory {
    fn kind(&self) -> ProviderKind {
        self.kind.clone()
    }

    fn validate(&self, _descriptor: &ProviderDescriptor) -> Result<(), ProvisioningError> {
        Ok(())
    }

    fn create(
        &self,
        descriptor: &ProviderDescriptor,
        _environment: &ProviderEnvironment,
    ) -> Result<Arc<dyn ClusterProvider>, ProvisioningError> {
        if let Some(known) = self.provider(descriptor.id.as_str()) {
            let provider = ScriptedProvider { descriptor: Arc::new(descriptor.clone()), ..known };
            return Ok(Arc::new(provider));
        }
        let provider = ScriptedProvider::new(descriptor.clone());
        self.add(provider.clone());
        Ok(Arc::new(provider))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_after_an_end_is_said_by_the_next_stream() {
        let descriptor = ProviderDescriptor::new("a", ProviderKind::in_memory()).unwrap();
        let (provider, cancel) = (ScriptedProvider::new(descriptor), CancelToken::new());
        let said = |stream: &mut Box<dyn ProviderStream>| match stream.next() {
            ProviderEvent::Snapshot { .. } => "snapshot",
            ProviderEvent::Terminated(_) => "end",
            _ => "something else",
        };
        let mut first = provider.watch(&cancel).unwrap();
        provider.end();
        provider.show(Members::default());
        provider.end();
        provider.show(Members::default());
        assert_eq!(said(&mut first), "end");
        let (mut second, mut third) = (provider.watch(&cancel).unwrap(), provider.watch(&cancel).unwrap());
        assert_eq!((said(&mut second), said(&mut second), said(&mut third)), ("snapshot", "end", "snapshot"));
    }
}
