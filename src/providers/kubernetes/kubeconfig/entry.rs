//! A map of a kubeconfig file, and what can be asked of it: each field by the type that it has to have. An error names the
//! place by its path, `users[alice].user.token`, and never repeats a value.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

use super::node::Node;
use crate::http::Pem;

/// A map, and where it stands.
pub(super) struct Entry<'a> {
    place: String,
    map: &'a [(String, Node)],
}

impl<'a> Entry<'a> {
    /// The map that stands there; nothing is an empty one.
    pub(super) fn of(node: &'a Node, place: String) -> Result<Self, String> {
        match node {
            Node::Null => Ok(Self { place, map: &[] }),
            Node::Map(map) => Ok(Self { place, map }),
            other => Err(format!("{place}: it is {}, not a map", other.kind())),
        }
    }

    /// That map, which stands there.
    pub(super) fn of_map(map: &'a [(String, Node)], place: String) -> Self {
        Self { place, map }
    }

    /// Where a field of it stands.
    pub(super) fn place(&self, key: &str) -> String {
        if self.place.is_empty() { key.to_owned() } else { format!("{}.{key}", self.place) }
    }

    /// The refusal of a field.
    pub(super) fn refuse(&self, key: &str, why: &str) -> String {
        format!("{}: {why}", self.place(key))
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Node> {
        let found = self.map.iter().find(|(other, _)| other == key).map(|(_, node)| node);
        found.filter(|node| !matches!(node, Node::Null))
    }

    /// A text; an empty one is none, as in the official client.
    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, String> {
        match self.get(key) {
            None => Ok(None),
            Some(Node::Text(text)) if text.is_empty() => Ok(None),
            Some(Node::Text(text)) => Ok(Some(text)),
            Some(other) => Err(self.refuse(key, &format!("it is {}, not a text; quotes make it one", other.kind()))),
        }
    }

    pub(super) fn flag(&self, key: &str) -> Result<bool, String> {
        match self.get(key) {
            None => Ok(false),
            Some(Node::Flag(flag)) => Ok(*flag),
            Some(other) => Err(self.refuse(key, &format!("it is {}, neither true nor false", other.kind()))),
        }
    }

    pub(super) fn list(&self, key: &str) -> Result<&'a [Node], String> {
        match self.get(key) {
            None => Ok(&[]),
            Some(Node::List(items)) => Ok(items),
            Some(other) => Err(self.refuse(key, &format!("it is {}, not a list", other.kind()))),
        }
    }

    /// The path of a file, from the kubeconfig's folder on.
    pub(super) fn path(&self, key: &str, folder: &Path) -> Result<Option<PathBuf>, String> {
        match self.text(key)? {
            None => Ok(None),
            Some(text) if text.chars().any(char::is_control) => {
                Err(self.refuse(key, "it is no path: it has control characters"))
            }
            Some(text) => Ok(Some(folder.join(text))),
        }
    }

    /// Something in PEM form: `<key>-data`, else the file that `<key>` names.
    pub(super) fn pem(&self, key: &str, data_key: &str, folder: &Path) -> Result<Option<Pem>, String> {
        let Some(text) = self.text(data_key)? else { return Ok(self.path(key, folder)?.map(Pem::File)) };
        let packed: Zeroizing<String> = Zeroizing::new(text.chars().filter(|c| !c.is_ascii_whitespace()).collect());
        let content =
            BASE64_STANDARD.decode(packed.as_bytes()).map_err(|_| self.refuse(data_key, "it is no base64"))?;
        let content = Arc::new(Zeroizing::new(content));
        Ok(Some(Pem::Held { place: self.place(data_key).into(), content }))
    }
}
