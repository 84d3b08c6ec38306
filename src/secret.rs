//! Values that must not be seen: they print as `***`, are wiped when dropped, and are never stored or logged.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

/// A secret value. Clones share it; it is wiped from memory when the last one is dropped.
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<String>>);

impl Secret {
    /// Takes the value over.
    pub fn new(value: impl Into<String>) -> Self {
        Self(Arc::new(Zeroizing::new(value.into())))
    }

    /// The value itself. Whoever asks sees to it that it goes nowhere but to the backend.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The secrets handed to the service's builder, by the names that descriptors use.
#[derive(Clone, Debug, Default)]
pub struct Secrets(Arc<BTreeMap<String, Secret>>);

impl Secrets {
    /// What to do where a name has none.
    pub(crate) const MISSING: &str = "hand it over with ServiceBuilder::secret, or correct its name";

    /// Secrets by name.
    pub fn new(secrets: impl IntoIterator<Item = (String, Secret)>) -> Self {
        Self(Arc::new(secrets.into_iter().collect()))
    }

    /// The secret of that name.
    pub fn get(&self, name: &str) -> Option<&Secret> {
        self.0.get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_never_print() {
        let secret = Secret::new("hunter2");
        let secrets = Secrets::new([("consul".to_owned(), secret.clone())]);
        let printed = format!("{secret} {secret:?} {secret:#?} {secrets:?}");
        assert!(!printed.contains("hunter2") && printed.contains("***"), "{printed}");
        assert_eq!(secrets.get("consul").map(Secret::expose), Some("hunter2"));
    }
}
