//! Certificates of a test's own, made with openssl.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A private authority with its certificates, in a temporary folder.
pub struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    /// An authority with a `server` (127.0.0.1 and localhost) and a `client`; `None` if there is no openssl: the test is
    /// skipped with a printed line, or fails where `LIVE_SERVERS=required` is set.
    pub fn make() -> Option<Self> {
        let runs = Command::new("openssl").arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !runs.is_ok_and(|status| status.success()) {
            assert!(std::env::var("LIVE_SERVERS").as_deref() != Ok("required"), "no openssl on the PATH");
            println!("skipped: no openssl");
            return None;
        }
        let made = Self { folder: tempfile::tempdir().unwrap() };
        made.authority("ca");
        made.server("server");
        made.issue("client", "ca", "extendedKeyUsage=clientAuth", 1);
        Some(made)
    }

    /// Another authority, of that name.
    pub fn authority(&self, name: &str) {
        let (key, certificate) = (self.file(name, "key"), self.file(name, "pem"));
        openssl(&["ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", &text(&key)]);
        let subject = format!("/CN={name}");
        let usage = "keyUsage=critical,keyCertSign,cRLSign";
        openssl(&[
            "req",
            "-x509",
            "-new",
            "-key",
            &text(&key),
            "-subj",
            &subject,
            "-days",
            "2",
            "-addext",
            usage,
            "-out",
            &text(&certificate),
        ]);
    }

    /// A server's certificate for 127.0.0.1 and localhost.
    pub fn server(&self, name: &str) {
        self.issue(name, "ca", "extendedKeyUsage=serverAuth\nsubjectAltName=IP:127.0.0.1,DNS:localhost", 1);
    }

    /// A server's certificate that has expired.
    pub fn expired_server(&self, name: &str) {
        self.issue(name, "ca", "extendedKeyUsage=serverAuth\nsubjectAltName=IP:127.0.0.1,DNS:localhost", -1);
    }

    /// A server's certificate for another host.
    pub fn server_elsewhere(&self, name: &str) {
        self.issue(name, "ca", "extendedKeyUsage=serverAuth\nsubjectAltName=DNS:elsewhere.example", 1);
    }

    /// A server's certificate by another authority.
    pub fn server_of(&self, name: &str, authority: &str) {
        self.issue(name, authority, "extendedKeyUsage=serverAuth\nsubjectAltName=IP:127.0.0.1,DNS:localhost", 1);
    }

    /// A client's certificate by another authority.
    pub fn client_of(&self, name: &str, authority: &str) {
        self.issue(name, authority, "extendedKeyUsage=clientAuth", 1);
    }

    /// Puts another certificate, and its key, in the place of one.
    pub fn replace(&self, name: &str, by: &str) {
        for ending in ["pem", "key"] {
            std::fs::copy(self.file(by, ending), self.file(name, ending)).unwrap();
        }
    }

    /// Lets the authority sign a certificate that is valid for so many days; those below 0 are over already.
    fn issue(&self, name: &str, authority: &str, extensions: &str, days: i64) {
        let key = text(&self.file(name, "key"));
        let (request, certificate) = (text(&self.file(name, "csr")), text(&self.file(name, "pem")));
        let extension_file = self.file(name, "ext");
        std::fs::write(&extension_file, format!("basicConstraints=CA:FALSE\n{extensions}\n")).unwrap();
        openssl(&["ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", &key]);
        openssl(&["req", "-new", "-key", &key, "-subj", &format!("/CN={name}"), "-out", &request]);
        openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            &text(&self.file(authority, "pem")),
            "-CAkey",
            &text(&self.file(authority, "key")),
            "-set_serial",
            &serial(name),
            "-days",
            &days.to_string(),
            "-extfile",
            &text(&extension_file),
            "-out",
            &certificate,
        ]);
    }

    /// The file of a certificate (`pem`) or of its key (`key`).
    pub fn file(&self, name: &str, ending: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.{ending}"))
    }

    /// The certificate's file.
    pub fn pem(&self, name: &str) -> String {
        text(&self.file(name, "pem"))
    }

    /// The key's file.
    pub fn key(&self, name: &str) -> String {
        text(&self.file(name, "key"))
    }

    /// What makes an agent serve HTTPS on its other port with that certificate, to clients that have one.
    pub fn agent(&self, server: &str) -> String {
        let (ca, certificate, key) = (self.pem("ca"), self.pem(server), self.key(server));
        format!(
            "ports {{ https = {{port}} }} ca_file = \"{ca}\" cert_file = \"{certificate}\" key_file = \"{key}\" \
             verify_incoming_https = true"
        )
    }
}

fn serial(name: &str) -> String {
    name.bytes().fold(1_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()) >> 1).to_string()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn openssl(arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
