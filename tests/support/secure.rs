//! TLS, and a unix socket, in front of a server that speaks neither.
//!
//! Each test file uses its share of it.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A file of `tests/certificates`.
pub fn certificate(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates").join(name)
}

/// The same as text.
pub fn pem(name: &str) -> String {
    std::fs::read_to_string(certificate(name)).unwrap()
}

/// The certificate that the file begins with.
pub fn der(name: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem(name).as_bytes()).unwrap()
}

/// How a server shakes hands.
#[derive(Clone)]
pub struct Handshake {
    pub certificate: &'static str,
    /// The authority whose client certificates it requires, if any.
    pub clients_of: Option<&'static str>,
    pub version: &'static SupportedProtocolVersion,
}

impl Handshake {
    /// TLS 1.3 with that certificate, and no client certificate required.
    pub fn with(certificate: &'static str) -> Self {
        Self { certificate, clients_of: None, version: &rustls::version::TLS13 }
    }

    /// The same, for clients with a certificate of that authority.
    pub fn clients_of(self, authority: &'static str) -> Self {
        Self { clients_of: Some(authority), ..self }
    }

    pub fn version(self, version: &'static SupportedProtocolVersion) -> Self {
        Self { version, ..self }
    }

    fn config(&self) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_protocol_versions(&[self.version]).unwrap();
        let builder = match self.clients_of {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(der(authority)).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let key = PrivateKeyDer::from_pem_slice(pem("server.key").as_bytes()).unwrap();
        Arc::new(builder.with_single_cert(vec![der(self.certificate)], key).unwrap())
    }
}

/// TLS in front of a server that speaks plain HTTP.
pub struct Secure {
    pub address: SocketAddr,
    config: Arc<Mutex<Arc<ServerConfig>>>,
    clients: Clients,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

/// What each client that was let in has shown.
type Clients = Arc<Mutex<Vec<Option<CertificateDer<'static>>>>>;

impl Secure {
    pub fn start(handshake: &Handshake, backend: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let secure = Self {
            address,
            config: Arc::new(Mutex::new(handshake.config())),
            clients: Clients::default(),
            open: Arc::default(),
        };
        let (config, clients, open) =
            (Arc::clone(&secure.config), Arc::clone(&secure.clients), Arc::clone(&secure.open));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                open.lock().unwrap().push(stream.try_clone().unwrap());
                let conn = ServerConnection::new(Arc::clone(&config.lock().unwrap())).unwrap();
                let clients = Arc::clone(&clients);
                std::thread::spawn(move || serve(conn, stream, backend, &clients));
            }
        });
        secure
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// From here on shakes hands in another way, and hangs up on those who are connected.
    pub fn restart(&self, handshake: &Handshake) {
        *self.config.lock().unwrap() = handshake.config();
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// What the clients have shown since it was asked last, in the order of their handshakes.
    pub fn take_clients(&self) -> Vec<Option<CertificateDer<'static>>> {
        std::mem::take(&mut self.clients.lock().unwrap())
    }
}

fn serve(conn: ServerConnection, mut client: TcpStream, backend: SocketAddr, clients: &Clients) {
    let conn = Arc::new(Mutex::new(conn));
    let mut server = None;
    let mut buffer = [0; 16 * 1024];
    while let Ok(read @ 1..) = client.read(&mut buffer) {
        let mut conn_now = conn.lock().unwrap();
        let mut bytes = &buffer[..read];
        let mut plain = Vec::new();
        let mut refused = false;
        while !bytes.is_empty() && !refused {
            conn_now.read_tls(&mut bytes).unwrap();
            refused = conn_now.process_new_packets().is_err();
            let _ = conn_now.reader().read_to_end(&mut plain);
        }
        while conn_now.wants_write() {
            if conn_now.write_tls(&mut client).is_err() {
                break;
            }
        }
        if refused {
            // As hard as it gets: what the client has sent meanwhile is not read.
            return;
        }
        if !conn_now.is_handshaking() && server.is_none() {
            let shown = conn_now.peer_certificates().and_then(|chain| chain.first().cloned());
            clients.lock().unwrap().push(shown.map(CertificateDer::into_owned));
            let Ok(connected) = TcpStream::connect(backend) else { return };
            let (from, to) = (connected.try_clone().unwrap(), client.try_clone().unwrap());
            let conn = Arc::clone(&conn);
            std::thread::spawn(move || answer(&conn, from, to));
            server = Some(connected);
        }
        drop(conn_now);
        if let Some(server) = &mut server
            && server.write_all(&plain).is_err()
        {
            break;
        }
    }
    if let Some(server) = server {
        let _ = server.shutdown(Shutdown::Both);
    }
}

fn answer(conn: &Mutex<ServerConnection>, mut server: TcpStream, mut client: TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = server.read(&mut buffer) {
        let mut conn = conn.lock().unwrap();
        conn.writer().write_all(&buffer[..read]).unwrap();
        while conn.wants_write() {
            if conn.write_tls(&mut client).is_err() {
                return;
            }
        }
    }
    let _ = client.shutdown(Shutdown::Both);
}

/// A unix socket in front of a server that listens on TCP.
#[cfg(unix)]
pub fn socket(path: &Path, backend: SocketAddr) {
    let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(backend) else { return };
            let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || copy(from, &to, |to| to.shutdown(Shutdown::Both)));
            std::thread::spawn(move || copy(server, &client, |to| to.shutdown(Shutdown::Both)));
        }
    });
}

/// Lets two connections be one, for as long as both live.
pub fn join(client: TcpStream, server: TcpStream) {
    let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || copy(from, &to, |to| to.shutdown(Shutdown::Both)));
    std::thread::spawn(move || copy(server, &client, |to| to.shutdown(Shutdown::Both)));
}

fn copy<'a, To>(mut from: impl Read, mut to: &'a To, end: impl FnOnce(&To) -> std::io::Result<()>)
where
    &'a To: Write,
{
    let _ = std::io::copy(&mut from, &mut to);
    let _ = end(to);
}
