//! TLS to a backend: the handshake, and the secured connection. Which authorities are trusted and who we are is read by
//! [`files`]; what a failed handshake means is said by [`refusal`].
//!
//! Decided here: a connection made with files that have been replaced since is not used again, so that renewed
//! certificates come into use with the next request; nothing is resumed from earlier connections, so that trust is
//! judged anew by each. A proxy that is itself reached over TLS is checked against the compiled-in authorities and never
//! sees our certificate: the settings are the backend's.

mod files;
mod material;
mod pinned;
mod refusal;

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::{ClientConnection, StreamOwned};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, RustlsConnector, Transport, TransportAdapter,
};

pub(crate) use files::TlsSettings;
pub(super) use files::{Tls, Unreadable};
#[cfg(feature = "kubeconfig")]
pub(crate) use material::{Material, Pem, SharedMaterial};
pub(super) use refusal::Refusal;

use super::dial::left;

/// Secures connections to one backend.
#[derive(Debug)]
pub(super) struct TlsConnector {
    /// The backend's host and port, and what secures the connection to it.
    backend: Option<(String, Arc<Tls>)>,
    /// What secures the connection to anyone else: a proxy.
    elsewhere: RustlsConnector,
}

impl TlsConnector {
    /// For the backend at that host and port, if it is reached over TLS.
    pub(super) fn new(backend: Option<(String, Arc<Tls>)>) -> Self {
        Self { backend, elsewhere: RustlsConnector::default() }
    }
}

impl<In: Transport> Connector<In> for TlsConnector {
    type Out = Box<dyn Transport>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Box<dyn Transport>>, ureq::Error> {
        let Some(transport) = chained else { return Ok(None) };
        if !details.needs_tls() || transport.is_tls() {
            return Ok(Some(Box::new(transport)));
        }
        let authority = details.uri.authority().map(|authority| authority.as_str());
        match &self.backend {
            Some((backend, tls)) if authority == Some(backend) => {
                Ok(Some(Box::new(TlsTransport::open(tls, details, Box::new(transport))?)))
            }
            _ => {
                let transport = self.elsewhere.connect(details, Some(transport))?;
                Ok(transport.map(|transport| Box::new(transport) as Box<dyn Transport>))
            }
        }
    }
}

/// A secured connection.
struct TlsTransport {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
    tls: Arc<Tls>,
    /// Which set of files it was made with.
    generation: u64,
}

impl TlsTransport {
    /// Shakes hands, within the time left for connecting.
    fn open(tls: &Arc<Tls>, details: &ConnectionDetails, chained: Box<dyn Transport>) -> Result<Self, ureq::Error> {
        let (config, generation) = tls.current().ok_or(ureq::Error::Tls("the certificates have not been read"))?;
        let name = tls.server_name().ok_or(ureq::Error::Tls("the host is no name that a certificate can hold"))?;
        let conn = ClientConnection::new(config, name)?;
        let mut sock = TransportAdapter::new(chained, Arc::clone(&details.current_time));
        sock.set_timeout(left(details)?);
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        let mut transport = Self { buffers, stream: StreamOwned { conn, sock }, tls: Arc::clone(tls), generation };
        match transport.stream.conn.complete_io(&mut transport.stream.sock) {
            Ok(_) => Ok(transport),
            Err(error) => Err(transport.explain(error)),
        }
    }

    /// What a failure means. A server that hangs up says why before that, which may still wait to be read.
    fn explain(&mut self, error: io::Error) -> ureq::Error {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        let error = match error.kind() {
            BrokenPipe | ConnectionAborted | ConnectionReset => self.last_words().unwrap_or(error),
            UnexpectedEof => io::Error::new(UnexpectedEof, "the server hung up on the TLS connection"),
            _ => error,
        };
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(cause) => ureq::Error::Io(io::Error::other(Refusal::new(cause, &self.tls))),
            None => error.into(),
        }
    }

    /// What the server sent before it hung up, if it is the reason.
    fn last_words(&mut self) -> Option<io::Error> {
        let StreamOwned { conn, sock } = &mut self.stream;
        while conn.read_tls(sock).ok()? > 0 {
            if let Err(cause) = conn.process_new_packets() {
                return Some(io::Error::new(io::ErrorKind::InvalidData, cause));
            }
        }
        None
    }
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        let Some(output) = self.buffers.output().get(..amount) else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput).into());
        };
        self.stream.write_all(output).map_err(|error| self.explain(error))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        match self.stream.read(self.buffers.input_append_buf()) {
            Ok(amount) => {
                self.buffers.input_appended(amount);
                Ok(amount > 0)
            }
            Err(error) => Err(self.explain(error)),
        }
    }

    fn is_open(&mut self) -> bool {
        self.generation == self.tls.generation() && self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsTransport").field("inner", &self.stream.sock.get_ref()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::error::ErrorCode;
    use crate::http::{Client, Length, Method, Request, Target};

    #[test]
    fn consul_point_20_a_shutdown_ends_a_handshake_that_is_never_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let client = Client::new(&Target::parse(&url, 1, 1).unwrap(), Duration::from_secs(60));
        let breaking = client.clone();
        let asking = std::thread::spawn(move || {
            let request = Request {
                method: Method::GET,
                url: &format!("{url}/v1/status/leader"),
                body: None,
                credential: None,
                answer_timeout: Duration::from_secs(60),
                max_body: 1024,
                length: Length::Document,
                doing: "testing",
            };
            client.exchange(&request).map(|answer| answer.status)
        });
        let (mut server, _) = listener.accept().unwrap();
        server.read_exact(&mut [0]).unwrap();
        let begun = Instant::now();
        breaking.shutdown();
        assert_eq!(asking.join().unwrap().unwrap_err().code(), ErrorCode::BackendUnavailable);
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}
