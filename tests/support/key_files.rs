//! Files with the keys of a gossip cluster, one for each name; replaced whole, as an operator is told to.
#![allow(dead_code)]

use std::path::PathBuf;

use cluster_provisioning::{Credential, ProviderDescriptor};

/// The keys of the tests.
pub const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
pub const OTHER: &str = "BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// See the module. They are removed when it is dropped.
pub struct KeyFiles(tempfile::TempDir);

impl KeyFiles {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// The file of that name has these keys from now on.
    pub fn write(&self, name: &str, keys: &[&str]) {
        let new = self.0.path().join("new");
        std::fs::write(&new, keys.join("\n")).unwrap();
        std::fs::rename(new, self.path(name)).unwrap();
    }

    /// That definition, with the keys of that file.
    pub fn seal(&self, name: &str, definition: ProviderDescriptor) -> ProviderDescriptor {
        definition.credential(Credential::TokenFile(self.path(name).to_str().unwrap().to_owned()))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}
