//! What a failed handshake means, in words: whose certificate was refused by whom, and why.

use std::fmt;

use rustls::{AlertDescription, CertificateError, Error};
use rustls_pki_types::UnixTime;

use super::Tls;
use crate::clock::Timestamp;
use crate::error::ErrorCode;

/// The most names of a certificate that are repeated.
const MAX_NAMES: usize = 6;
/// The longest text of the server's that is repeated, in characters.
const MAX_TEXT: usize = 80;

/// Why a connection could not be secured.
#[derive(Debug)]
pub(in crate::http) struct Refusal {
    pub(in crate::http) code: ErrorCode,
    pub(in crate::http) detail: String,
}

impl Refusal {
    pub(super) fn new(error: &Error, tls: &Tls) -> Self {
        let (code, detail) = match error {
            Error::InvalidCertificate(error) => (ErrorCode::CertificateRejected, of_theirs(error, tls)),
            Error::NoCertificatesPresented => {
                (ErrorCode::CertificateRejected, "the server has shown no certificate".to_owned())
            }
            Error::AlertReceived(alert) => of_ours(*alert, tls),
            Error::InvalidMessage(_) => {
                let detail = "what the server sends is not TLS; is it to be reached over http://?".to_owned();
                (ErrorCode::MalformedAnswer, detail)
            }
            other => {
                (ErrorCode::BackendUnavailable, format!("the TLS handshake failed: {}", plain(&other.to_string())))
            }
        };
        Self { code, detail }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Refusal {}

/// Why we refused the server's certificate.
fn of_theirs(error: &CertificateError, tls: &Tls) -> String {
    use CertificateError as E;
    match error {
        E::Expired => "the server's certificate, or one that it rests on, has expired".to_owned(),
        E::ExpiredContext { not_after, .. } => {
            format!("the server's certificate, or one that it rests on, expired on {}", date(*not_after))
        }
        E::NotValidYet => "the server's certificate, or one that it rests on, is not valid yet".to_owned(),
        E::NotValidYetContext { not_before, .. } => {
            format!("the server's certificate, or one that it rests on, is not valid before {}", date(*not_before))
        }
        E::UnknownIssuer if tls.has_authorities() => {
            format!("the server's certificate was issued by none of the authorities in {}", tls.authorities())
        }
        E::UnknownIssuer => {
            "the server's certificate was issued by none of the public authorities that are compiled in; \
                             a private one is named with ca-file"
                .to_owned()
        }
        E::NotValidForName => "the server's certificate is for another name".to_owned(),
        E::NotValidForNameContext { expected, presented } => {
            let shown = presented.iter().take(MAX_NAMES).map(|name| subject(name)).collect::<Vec<_>>();
            let more = if presented.len() > MAX_NAMES { " and others" } else { "" };
            let holds = if shown.is_empty() { "no names".to_owned() } else { format!("{}{more}", shown.join(", ")) };
            format!(
                "the server's certificate is not for {}: it holds {holds}; tls-server-name expects another name",
                plain(&expected.to_str())
            )
        }
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => {
            "the server's certificate is not meant for servers".to_owned()
        }
        E::Revoked => "the server's certificate has been revoked".to_owned(),
        E::BadSignature => "a signature in the server's certificates is wrong".to_owned(),
        E::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "the server's certificate is that of an authority itself (CA:TRUE); it needs one that it was issued"
                .to_owned()
        }
        other => format!("the server's certificate cannot be accepted: {}", plain(&other.to_string())),
    }
}

/// Why the server broke the handshake off.
fn of_ours(alert: AlertDescription, tls: &Tls) -> (ErrorCode, String) {
    use AlertDescription as A;
    match alert {
        A::CertificateRequired
        | A::NoCertificate
        | A::BadCertificate
        | A::UnsupportedCertificate
        | A::CertificateRevoked
        | A::CertificateExpired
        | A::CertificateUnknown
        | A::UnknownCA
        | A::DecryptError
        | A::AccessDenied => {
            let detail = if tls.has_identity() {
                format!("the server rejected our client certificate ({alert:?})")
            } else {
                let fields = tls.identity();
                format!("the server requires a client certificate ({alert:?}); name one with {fields}")
            };
            (ErrorCode::CertificateRejected, detail)
        }
        A::UnrecognisedName => {
            let detail = "the server has no certificate for the name that it was asked for (UnrecognisedName); \
                          tls-server-name asks for another";
            (ErrorCode::CertificateRejected, detail.to_owned())
        }
        A::HandshakeFailure if !tls.has_identity() => {
            let detail =
                "the server broke the TLS handshake off (HandshakeFailure); it may require a client certificate";
            (ErrorCode::BackendUnavailable, detail.to_owned())
        }
        other => (ErrorCode::BackendUnavailable, format!("the server broke the TLS handshake off ({other:?})")),
    }
}

/// A name as the certificate holds it, without the kind of name that rustls puts around it: `DnsName("localhost")`.
fn subject(name: &str) -> String {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    plain(inner.trim_matches('"'))
}

/// What the server said, without anything that could break a line.
fn plain(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(MAX_TEXT).collect()
}

fn date(time: UnixTime) -> Timestamp {
    Timestamp::from_millis(time.as_secs().saturating_mul(1000))
}
