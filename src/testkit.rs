//! What hosts need to test their own bridges and providers (feature `testkit`).
//!
//! - [`FakeClock`]: time that moves only when told to.
//! - [`Recorder`]: bridges that write down every call, in order, and misbehave on demand.
//! - [`ScriptedProvider`]: a provider whose streams say what a test tells them to.
//! - [`Harness`]: the hub's own rules and deliveries without threads, driven step by step.
//! - [`Simulation`]: seeded runs of that harness under faults of every kind, with checkers that judge each tick.
//! - [`gossip`]: whole clusters of the gossip membership on one clock and one seed, and of any other protocol beside it.

mod clock;
#[cfg(feature = "consul")]
mod consul;
pub mod gossip;
mod harness;
#[cfg(feature = "kubeconfig")]
mod kubeconfig;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod recorder;
mod scripted;
mod simulation;

pub use clock::FakeClock;
#[cfg(feature = "consul")]
#[doc(hidden)]
pub use consul::{ConsulDecoder, consul_check, consul_head};
pub use harness::{Harness, HarnessProvider, HarnessSettings, members, node};
#[cfg(feature = "kubeconfig")]
#[doc(hidden)]
pub use kubeconfig::{kubeconfig_answer, kubeconfig_file};
#[cfg(feature = "kubernetes")]
#[doc(hidden)]
pub use kubernetes::{
    kubernetes_failure, kubernetes_lines, kubernetes_objects, kubernetes_page, kubernetes_upserts, kubernetes_watch,
};
pub use recorder::{BridgeKind, Recorded, Recorder};
pub use scripted::{ScriptedFactory, ScriptedProvider};
pub use simulation::{Failure, Report, Simulation, Summary, Transition, Transitions};
