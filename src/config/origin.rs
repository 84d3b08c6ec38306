//! The text that a configuration was read from, and where in it a setting stands.
//!
//! A setting may turn out to be wrong long after it was read, when a factory looks at it. The text is gone through once
//! more then, to say where it stands.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::path::FieldPath;
use super::tree::{Node, Refusal};
use super::{READING, ServiceConfig, json, toml};
use crate::error::ProvisioningError;

/// What a text is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Toml,
    Json,
}

impl Format {
    /// By the file's ending.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let ending = path.extension()?.to_str()?.to_ascii_lowercase();
        match ending.as_str() {
            "toml" => Some(Format::Toml),
            "json" => Some(Format::Json),
            _ => None,
        }
    }

    /// # Errors
    /// What is wrong with the text by itself.
    pub(super) fn tree(self, text: &str) -> Result<Node, Refusal> {
        // Editors of old put a mark there, which JSON knows nothing of.
        let bare = text.strip_prefix('\u{feff}').unwrap_or(text);
        match self {
            Format::Toml => toml::tree(bare),
            Format::Json => json::tree(bare),
        }
    }
}

/// Where a configuration was read. Is not compared, since it is none of the settings.
#[derive(Clone, Default)]
pub(crate) struct Origin(Option<Arc<Text>>);

struct Text {
    text: String,
    format: Format,
    file: Option<String>,
    /// Of the settings as they were read: those that the host has changed since are not to be found in the text.
    settings: u64,
}

impl Origin {
    pub(super) fn new(text: &str, format: Format, file: Option<&Path>) -> Self {
        // Without its mark, so that places are the tree's.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).to_owned();
        Self(Some(Arc::new(Text { text, format, file: file.map(|path| format!("{path:?}")), settings: 0 })))
    }

    /// The same of these settings.
    pub(super) fn of(self, config: &ServiceConfig) -> Self {
        let text = self.0.and_then(Arc::into_inner);
        Self(text.map(|text| Arc::new(Text { settings: fingerprint(config), ..text })))
    }

    /// The error that the refusal is.
    pub(super) fn refuse(&self, refusal: Refusal) -> ProvisioningError {
        let Refusal { code, reason, advice, path, at } = refusal;
        let said = match &self.0 {
            Some(text) => format!("{}{reason}", text.place(at)),
            None => reason,
        };
        let mut error = ProvisioningError::new(code, READING, said);
        if !path.is_empty() {
            error = error.with_field(path.to_string());
        }
        match advice {
            Some(advice) => error.with_advice(advice),
            None => error,
        }
    }

    /// The error with the path of its setting, and its place if the settings are still those of the text.
    pub(super) fn locate(
        &self,
        config: &ServiceConfig,
        error: ProvisioningError,
        path: &FieldPath,
    ) -> ProvisioningError {
        let error = error.with_field(path.to_string());
        let Some(text) = self.0.as_ref().filter(|text| text.settings == fingerprint(config)) else { return error };
        let at = text.format.tree(&text.text).ok().map(|tree| tree.place(path));
        let detail = format!("{}{}", text.place(at), error.detail());
        error.with_detail(detail)
    }
}

impl Text {
    /// `"/etc/cluster.toml", line 3, column 7: `
    fn place(&self, at: Option<usize>) -> String {
        let place = at.map(|at| {
            // A parser may point behind the end, or into a character.
            let before = (0..=at.min(self.text.len())).rev().find_map(|at| self.text.get(..at)).unwrap_or_default();
            let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            format!("line {line}, column {column}")
        });
        match (&self.file, place) {
            (Some(file), Some(place)) => format!("{file}, {place}: "),
            (Some(file), None) => format!("{file}: "),
            (None, Some(place)) => format!("{place}: "),
            (None, None) => String::new(),
        }
    }
}

fn fingerprint(config: &ServiceConfig) -> u64 {
    xxh3_64(&serde_json::to_vec(config).unwrap_or_default())
}

impl PartialEq for Origin {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// Without the text.
impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_ref().and_then(|text| text.file.as_deref()) {
            Some(file) => f.write_str(file),
            None => f.write_str("-"),
        }
    }
}
