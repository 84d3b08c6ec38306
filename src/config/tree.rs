//! What a text says, whichever format it has: values that know where they begin.

use super::path::{FieldPath, Step};
use crate::error::ErrorCode;

/// How deep values may be nested. The settings need 5.
pub(super) const MAX_DEPTH: usize = 16;

/// A value, and where in the text it begins, in bytes.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: usize,
    pub(super) value: Value,
}

/// What there is in TOML and JSON.
#[derive(Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Unsigned(u64),
    Negative(i64),
    Float(f64),
    Text(String),
    Date,
    List(Vec<Node>),
    /// In the order of the text; no name twice.
    Table(Vec<Entry>),
}

/// A field.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    /// Where its name stands.
    pub(super) at: usize,
    pub(super) node: Node,
}

/// Why a text is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: ErrorCode,
    pub(super) reason: String,
    pub(super) advice: Option<String>,
    pub(super) path: FieldPath,
    pub(super) at: Option<usize>,
}

impl Refusal {
    pub(super) fn new(code: ErrorCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), advice: None, path: FieldPath::default(), at: None }
    }

    /// Of a text that is not of its format.
    pub(super) fn of_text(reason: impl Into<String>, at: Option<usize>) -> Self {
        Self { at, ..Self::new(ErrorCode::InvalidConfig, reason) }
    }

    pub(super) fn too_deep(at: usize) -> Self {
        Self::of_text(format!("it is nested more than {MAX_DEPTH} deep"), Some(at))
    }

    /// At that place, unless a closer one is known.
    pub(super) fn at(mut self, at: usize) -> Self {
        self.at = self.at.or(Some(at));
        self
    }

    /// Within that step.
    pub(super) fn within(mut self, step: Step) -> Self {
        self.path.begin_with(step);
        self
    }
}

impl Node {
    /// Where the path leads, or as far on the way as there is something.
    pub(super) fn place(&self, path: &FieldPath) -> usize {
        let mut node = self;
        for step in path.steps() {
            let next = match (step, &node.value) {
                (Step::Name(name), Value::Table(entries)) => {
                    entries.iter().find(|entry| entry.name == *name).map(|entry| &entry.node)
                }
                (Step::Index(index), Value::List(nodes)) => nodes.get(*index),
                _ => None,
            };
            let Some(next) = next else { break };
            node = next;
        }
        node.at
    }
}
