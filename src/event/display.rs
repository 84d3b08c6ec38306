//! Deliveries in words, one line each, for logs and for people. The position is not repeated; texts are not stable.

use std::fmt;

use super::*;

impl fmt::Display for ProvisioningEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProvisioningEvent::ProviderChanged(event) => event.fmt(f),
            ProvisioningEvent::Snapshot(event) => event.fmt(f),
            ProvisioningEvent::StreamEnded(event) => event.fmt(f),
            ProvisioningEvent::GateChanged(event) => write!(f, "placement is {}", event.gate),
            ProvisioningEvent::RemoteTopology(event) => write!(f, "{} {}", event.event, event.node_id),
            ProvisioningEvent::RemotingWarning(event) => event.fmt(f),
            ProvisioningEvent::LeasesPublished(event) => event.fmt(f),
            ProvisioningEvent::HealthChanged(event) => event.fmt(f),
            ProvisioningEvent::Warning(event) => write!(f, "warning: {}", event.error),
        }
    }
}

impl fmt::Display for ProviderChanged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.from {
            Some(from) => write!(f, "{} is followed instead of {from} ({})", self.to, self.reason),
            None => write!(f, "{} is followed ({})", self.to, self.reason),
        }
    }
}

impl fmt::Display for SnapshotDelivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (snapshot, diff) = (&self.snapshot, &self.diff);
        write!(f, "snapshot of {}: {} members, ", snapshot.provider_id, snapshot.members.len())?;
        write!(f, "{} joined, {} left, {} updated", diff.joined().len(), diff.left().len(), diff.updated().len())?;
        match snapshot.blocked.len() {
            0 => Ok(()),
            entries => write!(f, "; {entries} blocked"),
        }
    }
}

impl fmt::Display for StreamEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.termination {
            ProviderTermination::Ended => write!(f, "the stream of {} ended", self.provider_id),
            ProviderTermination::Errored { reason } => {
                write!(f, "the stream of {} failed: {}", self.provider_id, reason.brief())
            }
        }
    }
}

impl fmt::Display for RemotingWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.degraded {
            Some(error) => write!(f, "{} may be stale: {}", self.provider_id, error.brief()),
            None => write!(f, "{} is fresh", self.provider_id),
        }
    }
}

impl fmt::Display for LeaseUpdate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} leases with the token {}", self.leases.len(), self.position)
    }
}

impl fmt::Display for HealthChanged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.provider_id, self.from, self.to)?;
        match &self.cause {
            Some(error) => write!(f, " ({})", error.brief()),
            None => Ok(()),
        }
    }
}
