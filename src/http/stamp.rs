//! Puts the credential into a request at the last moment, below everything that logs.
//!
//! The HTTP client prints whole request heads at trace level. So it is given asterisks in place of the credential, and
//! the transport replaces them in the bytes that go out.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// The credential of the request under way. Shared by an agent's connections, of which one is in use at a time.
#[derive(Clone, Default)]
pub(super) struct Stamp(Arc<Mutex<Option<Secret>>>);

impl Stamp {
    /// Readies the credential for the next request, and returns what stands for it until then.
    pub(super) fn set(&self, secret: &Secret) -> String {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(secret.clone());
        placeholder(secret)
    }

    /// Forgets a credential that was not sent.
    pub(super) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Replaces the placeholder of a header in what is sent, once.
    fn apply(&self, bytes: &mut [u8]) {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(secret) = slot.as_ref() else { return };
        let value = Zeroizing::new(format!(": {}\r\n", secret.expose()).into_bytes());
        let pattern = format!(": {}\r\n", placeholder(secret)).into_bytes();
        let Some(at) = bytes.windows(pattern.len()).position(|window| window == pattern) else { return };
        if let Some(place) = bytes.get_mut(at..at + value.len()) {
            place.copy_from_slice(&value);
            *slot = None;
        }
    }
}

fn placeholder(secret: &Secret) -> String {
    "*".repeat(secret.expose().len())
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stamp(***)")
    }
}

impl<In: Transport> Connector<In> for Stamp {
    type Out = Stamped<In>;

    fn connect(&self, _: &ConnectionDetails, chained: Option<In>) -> Result<Option<Stamped<In>>, ureq::Error> {
        Ok(chained.map(|inner| Stamped { inner, stamp: self.clone() }))
    }
}

/// A connection whose requests are stamped.
#[derive(Debug)]
pub(super) struct Stamped<T> {
    inner: T,
    stamp: Stamp,
}

impl<T: Transport> Transport for Stamped<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        if let Some(bytes) = self.inner.buffers().output().get_mut(..amount) {
            self.stamp.apply(bytes);
        }
        self.inner.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consul_point_14_the_credential_replaces_its_placeholder_once() {
        let stamp = Stamp::default();
        let secret = Secret::new("abc");
        let head = format!("GET / HTTP/1.1\r\naccept: */*\r\nx: {}\r\n\r\n: ***\r\n", stamp.set(&secret));
        let mut bytes = head.into_bytes();
        stamp.apply(&mut bytes);
        stamp.apply(&mut bytes);
        assert_eq!(bytes, b"GET / HTTP/1.1\r\naccept: */*\r\nx: abc\r\n\r\n: ***\r\n");
        stamp.set(&secret);
        stamp.clear();
        let mut unstamped = *b"x: ***\r\n";
        stamp.apply(&mut unstamped);
        assert_eq!(&unstamped, b"x: ***\r\n");
        assert!(!format!("{stamp:?}").contains("abc"));
    }
}
