//! Any bytes as what happens to a member, packets and orders and time: nothing panics, and what has to hold of it holds.

#![no_main]

use cluster_provisioning::testkit::gossip::run_any_script;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| run_any_script(data));
