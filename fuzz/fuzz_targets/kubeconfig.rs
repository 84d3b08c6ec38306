//! Any bytes as a kubeconfig, or as the answer of an exec plugin: nothing panics, and nothing that is said of them
//! repeats a secret.
//!
//! An input is a byte that chooses what it is, and the content. Whatever has `s3cr3t` in it is a secret, unless it
//! stands where names, paths and commands do.

#![no_main]

use cluster_provisioning::testkit::{kubeconfig_answer, kubeconfig_file};
use libfuzzer_sys::fuzz_target;

const SECRET: &str = "s3cr3t";

fuzz_target!(|data: &[u8]| {
    let [choice, content @ ..] = data else { return };
    let (told, shown) = match choice % 4 {
        0 => {
            let told = kubeconfig_answer(content);
            assert!(told.iter().all(|text| !text.contains("given-to-it")), "{told:?}");
            (told, Vec::new())
        }
        _ => kubeconfig_file(content),
    };
    let is_shown = shown.iter().any(|text| text.contains(SECRET));
    for text in told {
        assert!(is_shown || !text.contains(SECRET), "{text}");
        assert!(text.len() < 8 << 20, "{} bytes", text.len());
    }
});
