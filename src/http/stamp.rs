//! Puts the credentials into a request at the last moment, below everything that logs, and notes whether anything of it
//! went out.
//!
//! The HTTP client prints whole request heads at trace level. So it is given asterisks in place of each credential, and
//! the transport replaces them in the bytes that go out.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// The credentials of the request under way, by the headers that carry them. Shared by an agent's connections, of which
/// one is in use at a time.
#[derive(Clone, Default)]
pub(super) struct Stamp {
    pending: Arc<Mutex<Vec<(&'static str, Secret)>>>,
    sent: Arc<AtomicBool>,
}

impl Stamp {
    /// A request begins, of which nothing has been sent.
    pub(super) fn begin(&self) {
        self.clear();
        self.sent.store(false, Ordering::SeqCst);
    }

    /// Whether anything of the request may have been sent.
    pub(super) fn was_sent(&self) -> bool {
        self.sent.load(Ordering::SeqCst)
    }

    /// Readies the credential for that header of the next request, and returns what stands for it until then.
    pub(super) fn set(&self, header: &'static str, secret: &Secret) -> String {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).push((header, secret.clone()));
        placeholder(secret)
    }

    /// Forgets credentials that were not sent.
    pub(super) fn clear(&self) {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Replaces the placeholder of each header in what is sent, once.
    fn apply(&self, bytes: &mut [u8]) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.retain(|(header, secret)| {
            let value = Zeroizing::new(format!("\r\n{header}: {}\r\n", secret.expose()).into_bytes());
            let pattern = format!("\r\n{header}: {}\r\n", placeholder(secret)).into_bytes();
            let Some(at) = bytes.windows(pattern.len()).position(|window| window == pattern) else { return true };
            match bytes.get_mut(at..at + value.len()) {
                Some(place) => place.copy_from_slice(&value),
                None => return true,
            }
            false
        });
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
        self.stamp.sent.store(true, Ordering::SeqCst);
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
    fn consul_point_14_each_credential_replaces_the_placeholder_of_its_own_header_once() {
        let stamp = Stamp::default();
        let (token, login) = (Secret::new("abc"), Secret::new("xyz"));
        let head = format!(
            "GET / HTTP/1.1\r\nx-other: ***\r\nauthorization: {1}\r\nx-token: {0}\r\n\r\nx-token: ***\r\n",
            stamp.set("x-token", &token),
            stamp.set("authorization", &login)
        );
        let mut bytes = head.into_bytes();
        stamp.apply(&mut bytes);
        stamp.apply(&mut bytes);
        let expected = "GET / HTTP/1.1\r\nx-other: ***\r\nauthorization: xyz\r\nx-token: abc\r\n\r\nx-token: ***\r\n";
        assert_eq!(bytes, expected.as_bytes());
        stamp.set("x-token", &token);
        stamp.clear();
        let mut unstamped = *b"\r\nx-token: ***\r\n";
        stamp.apply(&mut unstamped);
        assert_eq!(&unstamped, b"\r\nx-token: ***\r\n");
        assert!(!format!("{stamp:?}").contains("abc"));
    }
}
