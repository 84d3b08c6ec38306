//! Any bytes as a message of the gossip membership: nothing panics, and what is read is written and read again as it was.

#![no_main]

use cluster_provisioning::testkit::gossip::read_any_message;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| read_any_message(data));
