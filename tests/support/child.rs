//! A test in a process of its own, with an environment of its own.

use std::process::Command;

/// The variable by which such a process knows itself.
const MARK: &str = "CLUSTER_PROVISIONING_CHILD";

/// Whether this is such a process.
pub fn is_child() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Runs one test of this file in such a process, with these variables and none of a proxy's.
pub fn in_child(name: &str, environment: &[(&str, String)]) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", name, "--nocapture"]).env(MARK, "1");
    for variable in ["NO_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        child.env_remove(variable).env_remove(variable.to_lowercase());
    }
    child.envs(environment.iter().map(|(name, value)| (*name, value.as_str())));
    let output = child.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}
