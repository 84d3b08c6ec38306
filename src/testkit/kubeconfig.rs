//! The reading of kubeconfigs and of what exec plugins answer, without a file or process, for this crate's own fuzz
//! targets.

use crate::providers::kubernetes::kubeconfig::told::{told_answer, told_file};

/// Everything that is ever said of a kubeconfig with this content, and the texts in it that are no secrets.
pub fn kubeconfig_file(content: &[u8]) -> (Vec<String>, Vec<String>) {
    told_file(content)
}

/// Everything that is ever said of a plugin that answers this; without what it said on standard error, unless that
/// repeats what the plugin was given.
pub fn kubeconfig_answer(content: &[u8]) -> Vec<String> {
    told_answer(content)
}
