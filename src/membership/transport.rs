//! Membership on real networks: what carries a member's or an observer's messages. Holds no rules of the protocol.
//!
//! One thread does it all: it waits until something arrives, a deadline has come or somebody calls, hands that in, and
//! carries out what is wanted. What has arrived is handed in before the time that has passed, so that nobody is blamed for
//! an answer that waits in a buffer.
//!
//! | part | what it does |
//! |---|---|
//! | [`sockets`] | datagrams, and where connections arrive |
//! | [`connections`] | questions and their answers, each over a connection |
//! | [`frame`] | how a message lies in a connection |
//! | [`envelope`] | whether messages are sealed |
//! | [`flood`] | how many datagrams of one host are looked at |
//! | [`names`] | where hosts are that are known by name |
//! | [`resident`] | what is run: a member or an observer |
//! | [`node`] | how others speak to the thread |
//! | [`carrier`] | the thread |
//! | `traffic` | any bytes as what arrives, for tests |

mod carrier;
mod connections;
mod envelope;
mod flood;
mod frame;
mod names;
mod node;
mod resident;
mod sockets;
#[cfg(any(test, feature = "testkit"))]
mod traffic;

pub(crate) use frame::Reason;
pub(crate) use node::{Host, Node};
pub(crate) use sockets::everywhere;
#[cfg(any(test, feature = "testkit"))]
pub use traffic::run_any_traffic;

#[cfg(test)]
mod tests;
