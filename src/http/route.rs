//! The way to a target, for errors: its URL, and the addresses that its name stood for when it was last connected to.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::Target;

/// How many addresses of a name are shown.
const SHOWN: usize = 4;

/// The way to a target. Clones share the addresses.
#[derive(Clone, Debug)]
pub(super) struct Route {
    place: Arc<str>,
    /// What there is to look up.
    name: Option<Arc<str>>,
    addresses: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Route {
    pub(super) fn new(target: &Target) -> Self {
        Self { place: target.place().into(), name: target.name().map(Into::into), addresses: Arc::default() }
    }

    /// The name could not be looked up.
    pub(super) fn forget(&self) {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// A connection to that host is about to be made. A proxy's addresses are none of the target's.
    pub(super) fn found(&self, host: Option<&str>, addresses: &[SocketAddr]) {
        if self.name.is_some() && self.name.as_deref() == host {
            *self.addresses.lock().unwrap_or_else(PoisonError::into_inner) = addresses.to_vec();
        }
    }
}

/// `http://consul:8500 (10.0.0.1:8500, 10.0.0.2:8500)`.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)?;
        let addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if addresses.is_empty() {
            return Ok(());
        }
        let shown: Vec<_> = addresses.iter().take(SHOWN).map(SocketAddr::to_string).collect();
        let more = if addresses.len() > SHOWN { ", …" } else { "" };
        write!(f, " ({}{more})", shown.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_a_connection_names_the_url_and_what_its_name_stood_for() {
        let route = |url| Route::new(&Target::parse_with_path(url, 80, 443).unwrap());
        let addresses: Vec<SocketAddr> = (1..=5).map(|n| SocketAddr::from(([10, 0, 0, n], 8500))).collect();
        let named = route("http://consul.example:8500");
        assert_eq!(named.to_string(), "http://consul.example:8500");
        named.found(Some("proxy.example"), &addresses[..1]);
        assert_eq!(named.to_string(), "http://consul.example:8500", "that is somebody else");
        named.found(Some("consul.example"), &addresses[..1]);
        assert_eq!(named.to_string(), "http://consul.example:8500 (10.0.0.1:8500)");
        named.found(Some("consul.example"), &addresses);
        assert!(named.to_string().ends_with("10.0.0.4:8500, …)"), "{named}");
        named.forget();
        assert_eq!(named.to_string(), "http://consul.example:8500");
        let literal = route("https://[::1]/behind");
        literal.found(Some("[::1]"), &addresses);
        assert_eq!(literal.to_string(), "https://[::1]:443/behind");
    }
}
