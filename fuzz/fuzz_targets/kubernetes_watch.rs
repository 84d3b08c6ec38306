//! Any bytes as what a server, a network and a clock do: one request at a time, no hot loop, a sign of life in time, and
//! what is told amounts to the members.

#![no_main]

use cluster_provisioning::testkit::kubernetes_watch;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Err(what) = kubernetes_watch(data) {
        panic!("{what}");
    }
});
