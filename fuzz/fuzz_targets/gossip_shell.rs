//! Any bytes as what arrives at a node of a gossip cluster: datagrams, connections in pieces, sealed or not, answers and
//! refusals to what it asks: nothing panics, and what has to hold holds.

#![no_main]

use cluster_provisioning::testkit::gossip::run_any_traffic;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| run_any_traffic(data));
