//! What must hold whatever happens. Each checker of ticks is fed with every tick: its input by way of the model, its
//! deliveries, the calls of the bridges, the orders to the streams and the state that it left behind. Those of what lies
//! between the hub and everyone else, the lanes, the orders and the registrations, are fed with what happens there.

mod content;
mod failover;
mod gate;
mod health;
mod lanes;
mod liveness;
mod order;
mod orders;
mod registration;
mod remote;

use super::model::Model;
use super::shell::TracedTick;

pub(super) use lanes::{LANES, Lanes};
pub(super) use liveness::{LIVENESS, check_liveness};
pub(super) use orders::{ORDERS, Orders};
pub(super) use registration::{REGISTRATION, Registration};

/// Something that must hold in every tick.
pub(super) trait Checker {
    /// The name by which a failure is reported.
    fn name(&self) -> &'static str;

    /// Judges a tick. The model has taken the tick's input, but nothing of its output.
    fn check(&mut self, model: &Model, tick: &TracedTick) -> Result<(), String>;
}

/// All of them, fresh.
pub(super) fn all() -> Vec<Box<dyn Checker>> {
    vec![
        Box::new(order::Sequence::default()),
        Box::new(order::BridgeOrder::default()),
        Box::new(order::Leases::default()),
        Box::new(order::Bookkeeping::default()),
        Box::new(content::SnapshotContent),
        Box::new(content::LastKnownGood::default()),
        Box::new(content::NeedlessSnapshot),
        Box::new(content::Coalescing),
        Box::new(content::MassLoss),
        Box::new(content::HeldLeaves::default()),
        Box::new(gate::GateState),
        Box::new(gate::GateOrder),
        Box::new(remote::JoinsAndLeaves),
        Box::new(remote::StaleWarning::default()),
        Box::new(remote::Blocks::default()),
        Box::new(failover::OneActive),
        Box::new(failover::Restraint),
        Box::new(failover::SwitchGuard),
        Box::new(failover::Promptness),
        Box::new(failover::Draining),
        Box::new(health::ProviderHealths::default()),
        Box::new(health::Streams),
        Box::new(health::EndSignals),
    ]
}

/// Fails with the text unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err(format!($($text)+));
        }
    };
}
use ensure;
