//! What a run is made of: its settings, and how often what happens in it. All of it is the seed's.

use std::time::Duration;

use super::dice::Dice;
use super::world::Mood;
use crate::failover::{FailoverPolicy, FlapDamping, StandbyMode};
use crate::testkit::HarnessSettings;
use crate::topology::NodeId;

/// How many providers there are at the most.
pub(super) const PROVIDERS: usize = 4;
/// How often what happens in a run: each run leaves some of it out, so that rare combinations come about.
pub(super) struct Plan {
    pub(super) steps: u64,
    pub(super) drain_at: Option<u64>,
    /// The run ends with an order to stop.
    pub(super) stops: bool,
    /// Out of a thousand steps.
    pub(super) truth: u64,
    pub(super) fault: u64,
    pub(super) action: u64,
    pub(super) moods: Vec<Mood>,
    pub(super) actions: Vec<Action>,
    /// Out of a thousand steps that are a few milliseconds long.
    pub(super) hurry: u64,
    /// Out of a thousand steps after which the hub does not get to what was sent.
    pub(super) lateness: u64,
}

macro_rules! actions {
    ($($name:ident)*) => {
        /// What somebody does, or what befalls the process, between what time brings about.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Action {
            $($name,)*
        }

        impl Action {
            pub(super) const ALL: &'static [Action] = &[$(Action::$name,)*];
        }
    };
}

actions! {
    Quarantine
    Reconnect
    Exclude
    Operator
    Pin
    Ownership
    Reload
    Edit
    Panic
    Standstill
    Stuck
    StaleEvent
    Duplicate
    End
    Blackout
    LongAbsence
    Busy
    SlowCallback
    Hurry
    Flood
    Commands
    RefuseThreads
    ThreadDies
    StreamPanics
    RefuseWorkers
    EarlyRenewal
}

/// The settings, and whether the service registers the local node.
pub(super) fn settings(dice: &mut Dice) -> (HarnessSettings, bool) {
    let mut failover = FailoverPolicy::default();
    if dice.chance(300) {
        failover.standby = StandbyMode::Cold;
    }
    if dice.chance(300) {
        failover.mass_loss_share = Some(0.3 + 0.1 * dice.below(4) as f64);
    }
    if dice.chance(300) {
        failover.max_stale = Some(dice.millis(5_000, 40_000));
    }
    if dice.chance(200) {
        failover.max_errors = 1 + dice.below(4) as u32;
    }
    failover.flap_damping = match dice.below(10) {
        0..3 => None,
        3..5 => failover.flap_damping,
        _ => {
            let within = dice.millis(10_000, 60_000);
            let damping = FlapDamping::default().leaves(1 + dice.below(3) as u32).within(within);
            Some(damping.hold(dice.millis(1_000, 10_000)))
        }
    };
    let coalesce = if dice.chance(250) { Duration::ZERO } else { Duration::from_millis(100) };
    // A node that the service registers, or one that comes and goes by itself.
    let local = match dice.below(10) {
        0..4 => Some("me"),
        4..6 => Some("n0"),
        _ => None,
    };
    let local_node = local.map(|id| NodeId::new(id).expect("a valid id"));
    let seed = dice.below(u64::MAX);
    let settings = HarnessSettings { failover, coalesce, local_node, seed, ..HarnessSettings::default() };
    (settings, local == Some("me"))
}

/// How often what happens in the run.
pub(super) fn plan(dice: &mut Dice) -> Plan {
    let steps = 150 + dice.below(350);
    let drain_at = dice.chance(200).then(|| steps / 2 + dice.below(steps / 2));
    let moods = Mood::FAULTS.iter().copied().filter(|_| dice.chance(600)).collect();
    let actions = Action::ALL.iter().copied().filter(|_| dice.chance(600)).collect();
    Plan {
        steps,
        drain_at,
        stops: dice.chance(100),
        truth: 20 + dice.below(300),
        fault: 10 + dice.below(80),
        action: 20 + dice.below(200),
        moods,
        actions,
        hurry: dice.below(600),
        lateness: if dice.chance(500) { dice.below(500) } else { 0 },
    }
}
