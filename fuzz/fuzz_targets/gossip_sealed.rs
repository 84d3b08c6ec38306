//! Any bytes as a sealed message of the gossip membership, and sealed as the content of one: nothing panics, and none is
//! taken twice.

#![no_main]

use cluster_provisioning::testkit::gossip::open_any_sealed;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| open_any_sealed(data));
