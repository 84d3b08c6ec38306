//! A server whose own certificate stands among the trusted ones, as one that has signed itself: it is who it should be
//! because it holds that very certificate's key, whoever issued it. Its name and its dates are still checked. Everyone
//! else is checked by the chain up to an authority.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::civil;

/// Checks servers against trusted certificates.
#[derive(Debug)]
pub(super) struct PinnedOrIssued {
    pub(super) trusted: BTreeSet<Vec<u8>>,
    pub(super) by_chain: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for PinnedOrIssued {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.trusted.contains(shown.as_ref()) {
            return self.by_chain.verify_server_cert(shown, between, name, ocsp, now);
        }
        let [not_before, not_after] = validity(shown).ok_or(CertificateError::BadEncoding)?;
        if now < not_before {
            return Err(CertificateError::NotValidYetContext { time: now, not_before }.into());
        }
        if now > not_after {
            return Err(CertificateError::ExpiredContext { time: now, not_after }.into());
        }
        verify_server_name(&ParsedCertificate::try_from(shown)?, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_chain.supported_verify_schemes()
    }
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// From when to when a certificate is valid (RFC 5280, 4.1).
fn validity(certificate: &[u8]) -> Option<[UnixTime; 2]> {
    let (whole, _) = expect(certificate, SEQUENCE)?;
    let (mut rest, _) = expect(whole, SEQUENCE)?;
    if let Some((_, after)) = expect(rest, VERSION) {
        rest = after;
    }
    // Serial number, signature algorithm, issuer.
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        rest = expect(rest, tag)?.1;
    }
    let (dates, _) = expect(rest, SEQUENCE)?;
    let (not_before, rest) = time(dates)?;
    let (not_after, _) = time(rest)?;
    Some([not_before, not_after])
}

/// The content of the DER element of that tag at the beginning, and what follows it.
fn expect(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        // Up to 64 KiB - 1: a certificate has a few KiB.
        0x81 | 0x82 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    (*found == tag).then(|| rest.split_at_checked(length))?
}

/// A time, `YYMMDDhhmmssZ` or, from 2050 on, `YYYYMMDDhhmmssZ`, and what follows it.
fn time(bytes: &[u8]) -> Option<(UnixTime, &[u8])> {
    let (text, rest, century) = match expect(bytes, UTC_TIME) {
        Some((text, rest)) => (text, rest, if text.first()? < &b'5' { "20" } else { "19" }),
        None => expect(bytes, GENERALIZED_TIME).map(|(text, rest)| (text, rest, ""))?,
    };
    let digits = format!("{century}{}", std::str::from_utf8(text.strip_suffix(b"Z")?).ok()?);
    if digits.len() != 14 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number = |from: usize, to: usize| digits.get(from..to)?.parse::<u64>().ok();
    let year = number(0, 4)?;
    let date = [year.max(1970), number(4, 6)?, number(6, 8)?];
    let seconds = civil::seconds(date, [number(8, 10)?, number(10, 12)?, number(12, 14)?])?;
    // What was valid before 1970 was so on its first day.
    let seconds = if year < 1970 { seconds % 86_400 } else { seconds };
    Some((UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)), rest))
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::pem::PemObject;

    use super::*;

    fn seconds(text: &str, tag: u8) -> Option<u64> {
        let mut bytes = vec![tag, u8::try_from(text.len()).unwrap()];
        bytes.extend(text.bytes());
        time(&bytes).map(|(time, _)| time.as_secs())
    }

    #[test]
    fn consul_point_17_the_dates_of_a_certificate_are_read() {
        let pem = include_bytes!("../../../tests/certificates/server-expired.pem");
        let certificate = CertificateDer::from_pem_slice(pem).unwrap();
        let dates = validity(&certificate).unwrap().map(|time| time.as_secs());
        assert_eq!(dates, [1_577_836_800, 1_609_459_200]);
        for length in 0..certificate.len() {
            // Cut off anywhere it is refused, or its dates stand before the cut.
            let cut = validity(&certificate[..length]);
            assert!(cut.is_none(), "{length}");
        }
        assert_eq!(seconds("700101000000Z", UTC_TIME), Some(0));
        assert_eq!(seconds("491231235959Z", UTC_TIME), Some(2_524_607_999));
        assert_eq!(seconds("20000229120000Z", GENERALIZED_TIME), Some(951_825_600));
        assert_eq!(seconds("21190101000000Z", GENERALIZED_TIME), Some(4_701_974_400));
        assert_eq!(seconds("19491231235959Z", GENERALIZED_TIME), Some(86_399));
        for bad in ["", "Z", "700101000000", "7001010000Z", "701301000000Z", "700100000000Z", "70010100000xZ"] {
            assert_eq!(seconds(bad, UTC_TIME), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn consul_point_17_any_bytes_in_place_of_a_certificate_are_no_panic(bytes: Vec<u8>) {
            let _ = validity(&bytes);
            let _ = time(&bytes);
        }
    }
}
