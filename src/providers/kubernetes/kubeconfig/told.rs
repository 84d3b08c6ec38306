//! All that is ever said of a kubeconfig and of a plugin's answer, as text: for the crate's own tests and fuzz targets.

use std::path::{Path, PathBuf};

use super::Found;
use super::document::{Document, Kind};
use super::entry::Entry;
use super::exec::{Answer, Spec};
use super::merge::Merged;
use super::node::Node;

/// The keys of texts that errors may show: names, files and commands.
const SHOWN: [&str; 10] = [
    "name",
    "cluster",
    "user",
    "current-context",
    "certificate-authority",
    "client-certificate",
    "client-key",
    "tokenFile",
    "command",
    "installHint",
];

/// Everything that reading the content as a kubeconfig says, and what of it is no secret.
pub(crate) fn told_file(content: &[u8]) -> (Vec<String>, Vec<String>) {
    let (mut told, mut shown) = (Vec::new(), Vec::new());
    match Node::parse(content) {
        Ok(node) => collect(&node, &mut shown),
        Err(error) => told.push(error),
    }
    let document = match Document::parse(content) {
        Ok(document) => document,
        Err(error) => {
            told.push(error);
            return (told, shown);
        }
    };
    told.push(format!("{document:?}"));
    let names = |kind| document.names(kind).map(str::to_owned).collect::<Vec<_>>();
    let (clusters, contexts, users) = (names(Kind::Cluster), names(Kind::Context), names(Kind::User));
    let merged = Merged(vec![(PathBuf::from("/folder"), document)]);
    told.extend(merged.current_context().and_then(|name| merged.context(name).err()));
    for context in contexts {
        match merged.context(&context) {
            Ok(context) => told.extend(Found::read(&merged, &context.cluster, context.user.as_deref()).err()),
            Err(error) => told.push(error),
        }
    }
    for cluster in clusters {
        told.push(format!("{:?}", merged.entry(Kind::Cluster, &cluster, super::Cluster::read)));
    }
    for user in users {
        told.push(format!("{:?}", merged.entry(Kind::User, &user, super::User::read)));
    }
    (told, shown)
}

fn collect(node: &Node, shown: &mut Vec<String>) {
    match node {
        Node::List(items) => items.iter().for_each(|item| collect(item, shown)),
        Node::Map(pairs) => {
            for (key, node) in pairs {
                match node {
                    Node::Text(text) if SHOWN.contains(&key.as_str()) => shown.push(text.to_string()),
                    _ => collect(node, shown),
                }
            }
        }
        _ => {}
    }
}

/// Everything that reading the bytes as a plugin's answer says, and those of its standard error that errors repeat.
pub(crate) fn told_answer(bytes: &[u8]) -> Vec<String> {
    let spec = plugin();
    let answer = match spec.answer(bytes) {
        Ok(Answer { token, client, expires }) => format!("{token:?} {client:?} {expires:?}"),
        Err(error) => error,
    };
    // What it was given is taken out of what it says.
    vec![answer, spec.last_words(bytes).filter(|words| words.contains("given-to-it")).unwrap_or_default()]
}

/// A plugin.
pub(super) fn plugin() -> Spec {
    let text = "{apiVersion: client.authentication.k8s.io/v1, command: c, args: [--secret=given-to-it, given-to-it], \
                env: [{name: N, value: given-to-it-too}]}";
    let node = Node::parse(text.as_bytes()).unwrap_or(Node::Null);
    let spec =
        Entry::of(&node, "users[u].user.exec".to_owned()).and_then(|entry| Spec::read(&entry, Path::new("/folder")));
    spec.unwrap_or_else(|why| panic!("{why}"))
}
