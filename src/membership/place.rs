//! Where a member is reached: for datagrams and over the reliable channel alike.

use std::fmt;
use std::sync::Arc;

/// A host, by address or name, and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    host: Arc<str>,
    port: u16,
}

impl Place {
    pub(crate) fn new(host: &str, port: u16) -> Self {
        Self { host: Arc::from(host), port }
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m5_5_a_place_is_shown_as_a_url_would_have_it() {
        assert_eq!(Place::new("10.0.0.1", 7946).to_string(), "10.0.0.1:7946");
        assert_eq!(Place::new("fd00::1", 7946).to_string(), "[fd00::1]:7946");
    }
}
