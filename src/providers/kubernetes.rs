//! Kubernetes: the members are the pods of a label selector, or the endpoints of a service.
//!
//! The provider lists and watches them through the API server. `watch` decides what is asked and believed; `object` is what
//! a watched object says, as `wire` reads it; `directory` joins objects to members; `label` knows what may be a label.

#![allow(dead_code, reason = "put together step by step")]

mod directory;
mod label;
mod object;
mod watch;
pub(crate) mod wire;
