//! The clients beside another: each for one request more at the same time, and shut down with it.

use std::sync::{Arc, Mutex, PoisonError};

use ureq::Agent;

/// The agents of the clients that stand beside another; none once that has been shut down. Shared by that client's clones.
#[derive(Clone)]
pub(super) struct Beside(Arc<Mutex<Option<Vec<Agent>>>>);

impl Beside {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Some(Vec::new()))))
    }

    /// Adds an agent, which is shut down at once if the client has been.
    pub(super) fn add(&self, agent: Agent) {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(agents) => agents.push(agent),
            None => agent.shutdown(),
        }
    }

    /// Shuts down all that are there.
    pub(super) fn clear(&self) {
        if let Some(agents) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            agents.drain(..).for_each(Agent::shutdown);
        }
    }

    /// The client is shut down, and with it all that stand beside it or would.
    pub(super) fn close(&self) {
        let agents = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        agents.into_iter().flatten().for_each(Agent::shutdown);
    }
}
