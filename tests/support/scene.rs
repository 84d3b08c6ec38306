//! What all scenarios with member processes share: the service, the usual members, and how long things may take.
#![allow(dead_code)]

use std::time::{Duration, Instant};

use cluster_provisioning::{ConsulFactory, ProviderDescriptor};

use crate::cast::Cast;
use crate::consul::{Consul, Setup};
use crate::members::MemberProcess;

pub const SERVICE: &str = "orders";
/// The usual members.
pub const IDS: [&str; 3] = ["n1", "n2", "n3"];
/// What takes no longer unless the test fails.
pub const SOON: Duration = Duration::from_secs(20);
/// How long a member's check passes without a heartbeat.
pub const TTL: Duration = Duration::from_secs(3);

/// The provider `consul`, at that URL.
pub fn provider(url: &str) -> ProviderDescriptor {
    ConsulFactory::descriptor("consul", url, SERVICE).unwrap()
}

/// An agent that keeps its state over a restart.
pub fn kept() -> Setup {
    Setup { kept: true, ..Setup::default() }
}

/// Waits until Consul itself shows exactly these.
pub fn wait_passing(consul: &Consul, ids: &[&str], within: Duration) -> Instant {
    let deadline = Instant::now() + within;
    loop {
        let passing = consul.passing(SERVICE);
        if passing == ids {
            return Instant::now();
        }
        assert!(Instant::now() < deadline, "Consul shows {passing:?} instead of {ids:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How long a fault lasts. Nothing is waited for: the time itself is the fault.
pub fn lasting(duration: Duration) {
    std::thread::sleep(duration);
}

/// Another member joins the usual ones, and everyone sees it: all watches follow.
pub fn a_fourth_joins(cast: &mut Cast, providers: &[ProviderDescriptor]) {
    cast.add(MemberProcess::member("n4", providers));
    cast.wait_members(&["n1", "n2", "n3", "n4"], SOON);
}
