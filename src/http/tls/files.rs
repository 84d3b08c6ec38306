//! What is trusted and who we are: authorities, our own certificate and its key, read from files and read again once
//! these have changed.
//!
//! Whether they have changed is asked before every request, by their times, sizes and inodes. A set that cannot be read
//! or does not fit together (a certificate replaced before its key) leaves the last good set in force, with a warning,
//! and is tried again with the next request. One that never could be read is an error.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::material::{Material, Pem};
use super::pinned::PinnedOrIssued;
use crate::file::Seen;
use crate::http::target::bare;
use crate::text::line::log_line;

/// The largest file of certificates or keys that is read, in bytes. A bundle of all public authorities has 220 kB.
const MAX_FILE: u64 = 1024 * 1024;
/// The most files that a folder of authorities may hold. A system's own has about 300.
const MAX_FILES: usize = 1000;

/// How a connection is secured. The default trusts the public authorities that are compiled in, and shows no
/// certificate.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsSettings {
    /// A file with the certificates of trusted authorities.
    pub(crate) ca_file: Option<PathBuf>,
    /// A folder of such files.
    pub(crate) ca_path: Option<PathBuf>,
    /// Our own certificate, with those between it and its authority, and its key.
    pub(crate) client: Option<(PathBuf, PathBuf)>,
    /// The name that the server's certificate has to hold, in place of the host's.
    pub(crate) server_name: Option<String>,
    /// Whether the server's certificate goes unchecked.
    pub(crate) unchecked: bool,
    /// Authorities and our own certificate that are held in memory, in place of the files above.
    #[cfg(feature = "kubeconfig")]
    pub(crate) held: Option<super::SharedMaterial>,
}

impl TlsSettings {
    /// Whether this can be a server's name.
    pub(crate) fn is_server_name(name: &str) -> bool {
        ServerName::try_from(name).is_ok()
    }

    /// The authorities and our own certificate, and where they are from.
    fn material(&self) -> (Material, Fields) {
        #[cfg(feature = "kubeconfig")]
        if let Some(held) = &self.held {
            return (held.current().1, Fields { ca: "kubeconfig", certificate: "kubeconfig", key: "kubeconfig" });
        }
        let client = self.client.clone().map(|(certificate, key)| (Pem::File(certificate), Pem::File(key)));
        let material = Material { ca: self.ca_file.clone().map(Pem::File), client };
        (material, Fields { ca: "ca-file", certificate: "client-cert", key: "client-key" })
    }
}

/// The parameters that errors name.
#[derive(Clone, Copy)]
struct Fields {
    ca: &'static str,
    certificate: &'static str,
    key: &'static str,
}

/// Why files cannot be used: the parameter that names them, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::http) struct Unreadable {
    pub(in crate::http) field: &'static str,
    pub(in crate::http) detail: String,
}

fn unreadable(field: &'static str, detail: impl Into<String>) -> Unreadable {
    Unreadable { field, detail: detail.into() }
}

/// What secures the connections to one backend: the settings, and what was last read by them.
pub(in crate::http) struct Tls {
    settings: TlsSettings,
    host: String,
    state: Mutex<State>,
    generation: AtomicU64,
}

#[derive(Default)]
struct State {
    /// The last good set.
    config: Option<Arc<ClientConfig>>,
    /// The files as they were when the set was read.
    seen: Vec<Origin>,
    /// What the last attempt to read a newer set failed with.
    complaint: Option<Unreadable>,
}

impl Tls {
    /// For that host. Reads nothing yet.
    pub(in crate::http) fn new(settings: TlsSettings, host: &str) -> Self {
        Self { settings, host: bare(host).to_owned(), state: Mutex::default(), generation: AtomicU64::new(0) }
    }

    /// Looks whether the files have changed, and reads them if so.
    ///
    /// # Errors
    /// They cannot be used, and no earlier ones could.
    pub(in crate::http) fn refresh(&self) -> Result<(), Unreadable> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = self.look();
        // A failed attempt is repeated although nothing seems to have changed: rights may have.
        if state.config.is_some() && state.complaint.is_none() && state.seen == seen {
            return Ok(());
        }
        match self.read() {
            Ok(config) => {
                if state.config.is_some() {
                    log_line!(Info, "{}: certificates have been replaced; new connections use the new ones", self.host);
                }
                if self.settings.unchecked {
                    log_line!(Warn, "{}: the server's certificate is not checked (tls-verify=off)", self.host);
                }
                *state = State { config: Some(Arc::new(config)), seen, complaint: None };
                self.generation.fetch_add(1, Ordering::Release);
                Ok(())
            }
            Err(complaint) if state.config.is_some() => {
                if state.complaint.as_ref() != Some(&complaint) {
                    let Unreadable { field, detail } = &complaint;
                    log_line!(Warn, "{}: {field}: {detail}; the last good certificates stay in use", self.host);
                }
                state.complaint = Some(complaint);
                Ok(())
            }
            Err(complaint) => Err(complaint),
        }
    }

    /// What was read last, and its number; `None` before the first time.
    pub(in crate::http) fn current(&self) -> Option<(Arc<ClientConfig>, u64)> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.config.clone().map(|config| (config, self.generation()))
    }

    /// The number of the set that was read last.
    pub(in crate::http) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The name that the server's certificate has to hold, and that the server is asked for.
    pub(in crate::http) fn server_name(&self) -> Option<ServerName<'static>> {
        let name = self.settings.server_name.as_deref().unwrap_or(&self.host);
        ServerName::try_from(name).ok().map(|name| name.to_owned())
    }

    /// Whether we have a certificate to show.
    pub(super) fn has_identity(&self) -> bool {
        self.settings.material().0.client.is_some()
    }

    /// Whether it is for us to say who is trusted, and not for the compiled-in authorities.
    pub(super) fn has_authorities(&self) -> bool {
        self.settings.ca_path.is_some() || self.settings.material().0.ca.is_some()
    }

    /// Where the authorities are named.
    pub(super) fn authorities(&self) -> &'static str {
        match self.settings.material().1.ca {
            "ca-file" => "ca-file and ca-path",
            other => other,
        }
    }

    /// Where our own certificate is named.
    pub(super) fn identity(&self) -> &'static str {
        match self.settings.material().1.key {
            "client-key" => "client-cert and client-key",
            other => other,
        }
    }

    /// The files as they are now, and the number of what is held.
    fn look(&self) -> Vec<Origin> {
        let (Material { ca, client }, _) = self.settings.material();
        let (certificate, key) = client.map_or((None, None), |(certificate, key)| (Some(certificate), Some(key)));
        let single = [ca, certificate, key].into_iter().flatten().filter_map(Pem::into_path);
        let folder = self.settings.ca_path.as_deref().map(|path| entries(path).unwrap_or_default()).unwrap_or_default();
        let files = single.chain(folder).map(|path| Origin::File(Seen::new(path)));
        #[cfg(feature = "kubeconfig")]
        let files = files.chain(self.settings.held.as_ref().map(|held| Origin::Held(held.current().0)));
        files.collect()
    }

    fn read(&self) -> Result<ClientConfig, Unreadable> {
        // The process's own choice of cryptography goes first, as everywhere in it.
        let provider = CryptoProvider::get_default().cloned();
        let provider = provider.unwrap_or_else(|| Arc::new(rustls::crypto::ring::default_provider()));
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| unreadable("endpoints", format!("the process's cryptography has no TLS: {error}")))?;
        let builder = if self.settings.unchecked {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Unchecked(provider)))
        } else {
            builder.dangerous().with_custom_certificate_verifier(self.verifier(provider)?)
        };
        let (Material { client, .. }, fields) = self.settings.material();
        let mut config = match client {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(fields.certificate, &certificate)?;
                let key = private_key(fields.key, &key)?;
                builder.with_client_auth_cert(chain, key).map_err(|error| mismatch(fields, &error))?
            }
        };
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    fn verifier(&self, provider: Arc<CryptoProvider>) -> Result<Arc<PinnedOrIssued>, Unreadable> {
        let trusted = self.trusted()?;
        let roots = if self.has_authorities() {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(trusted.iter().map(|certificate| CertificateDer::from(&**certificate)));
            roots
        } else {
            RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }
        };
        let by_chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let by_chain = by_chain
            .map_err(|error| unreadable(self.settings.material().1.ca, format!("nobody is trusted: {error}")))?;
        Ok(Arc::new(PinnedOrIssued { trusted, by_chain }))
    }

    /// The certificates that are trusted in place of the public authorities, each once: a folder holds the same under
    /// several names.
    fn trusted(&self) -> Result<BTreeSet<Vec<u8>>, Unreadable> {
        let mut trusted = BTreeSet::new();
        let (Material { ca, .. }, fields) = self.settings.material();
        if let Some(pem) = ca {
            trusted.extend(usable(fields.ca, &pem, certificates(fields.ca, &pem)?)?);
        }
        if let Some(path) = &self.settings.ca_path {
            let mut of_folder = BTreeSet::new();
            for file in entries(path)?.into_iter().map(Pem::File) {
                // A folder may hold other things: folders, keys, lists of revoked certificates, a README.
                let Ok(certificates) = certificates("ca-path", &file) else { continue };
                of_folder.extend(usable("ca-path", &file, certificates).unwrap_or_default());
            }
            if of_folder.is_empty() {
                let detail = format!("folder {path:?} has no file with a certificate in PEM form");
                return Err(unreadable("ca-path", detail));
            }
            trusted.append(&mut of_folder);
        }
        Ok(trusted)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("host", &self.host).field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// What was read, as it was seen: a file, or what is held in memory, by its number.
#[derive(Debug, PartialEq, Eq)]
enum Origin {
    File(Seen),
    #[cfg(feature = "kubeconfig")]
    Held(u64),
}

/// What a folder holds, in the order of the names.
fn entries(path: &Path) -> Result<Vec<PathBuf>, Unreadable> {
    let failed = |error: std::io::Error| unreadable("ca-path", format!("folder {path:?}: {}", error.kind()));
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        if entries.len() == MAX_FILES {
            return Err(unreadable("ca-path", format!("folder {path:?} has more than {MAX_FILES} files")));
        }
        entries.push(entry.map_err(failed)?.path());
    }
    entries.sort();
    Ok(entries)
}

/// All certificates of a file, at least one.
fn certificates(field: &'static str, pem: &Pem) -> Result<Vec<CertificateDer<'static>>, Unreadable> {
    let content = pem.read(MAX_FILE).map_err(|detail| unreadable(field, detail))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(unreadable(field, format!("{pem} has no certificate in PEM form"))),
        // What the error says is where the form is broken, not what is there; still, a key may be in the same file.
        Err(_) => Err(unreadable(field, format!("{pem} is damaged: not valid PEM"))),
    }
}

/// Those of an authority's certificates that can be used, at least one.
fn usable(
    field: &'static str,
    pem: &Pem,
    certificates: Vec<CertificateDer<'static>>,
) -> Result<Vec<Vec<u8>>, Unreadable> {
    let all = certificates.len();
    let fits = |certificate: &CertificateDer<'static>| RootCertStore::empty().add(certificate.clone()).is_ok();
    let usable: Vec<_> = certificates.into_iter().filter(fits).map(|certificate| certificate.to_vec()).collect();
    if usable.is_empty() {
        return Err(unreadable(field, format!("{pem} has no usable certificate of an authority")));
    }
    if usable.len() < all {
        log_line!(Warn, "{field}: {} of {all} certificates in {pem} are unusable and left out", all - usable.len());
    }
    Ok(usable)
}

fn private_key(field: &'static str, pem: &Pem) -> Result<PrivateKeyDer<'static>, Unreadable> {
    let content = pem.read(MAX_FILE).map_err(|detail| unreadable(field, detail))?;
    PrivateKeyDer::from_pem_slice(&content).map_err(|_| {
        let encrypted = content.windows(9).any(|window| window == b"ENCRYPTED");
        let what = if encrypted { "is encrypted" } else { "has no private key in PEM form" };
        unreadable(field, format!("{pem} {what}; PKCS #1, PKCS #8 and SEC 1 are read, unencrypted"))
    })
}

fn mismatch(fields: Fields, error: &rustls::Error) -> Unreadable {
    match error {
        rustls::Error::InconsistentKeys(_) => unreadable(fields.key, "the key is not that of the certificate"),
        rustls::Error::InvalidCertificate(_) => unreadable(fields.certificate, "the certificate is damaged"),
        // The text may describe the key.
        _ => unreadable(fields.key, "the key cannot be used"),
    }
}

/// Takes any certificate, as it was told to; that the server holds its key is checked all the same.
#[derive(Debug)]
struct Unchecked(Arc<CryptoProvider>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
