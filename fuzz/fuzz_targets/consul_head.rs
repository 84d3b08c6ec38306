//! Any bytes as the headers of an answer, a line each: nothing panics, and no index is 0.

#![no_main]

use cluster_provisioning::testkit::consul_head;
use libfuzzer_sys::fuzz_target;

const NAMES: [&str; 5] = [
    "x-consul-index",
    "x-consul-lastcontact",
    "x-consul-knownleader",
    "x-consul-effective-consistency",
    "x-consul-results-filtered-by-acls",
];

fuzz_target!(|data: &[u8]| {
    let lines = data.split(|byte| *byte == b'\n').take(16);
    let headers: Vec<_> = lines.filter_map(|line| line.split_first()).collect();
    let headers: Vec<_> = headers.iter().map(|(name, value)| (NAMES[**name as usize % NAMES.len()], *value)).collect();
    if let Ok(mark) = consul_head(&headers) {
        assert!(!mark.contains("index: Some(0)"), "{mark}");
    }
});
