//! Reads a credential from where its descriptor says, anew for each request, so that a rotated one is used at once.
//!
//! A source that cannot be read for a moment (a file being replaced) leaves the last value in force; one that never
//! could be read is an error. What the credential is for, and in which header it travels, is the provider's business.

use std::path::Path;

use zeroize::Zeroizing;

use crate::error::{ErrorCode, ProvisioningError};
use crate::file;
use crate::provider::Credential;
use crate::secret::{Secret, Secrets};
use crate::text::line::log_line;

/// The largest token file read, in bytes. The largest tokens in use (JWTs) have a few KiB.
const MAX_TOKEN: u64 = 64 * 1024;

/// Reads the credential of one connection.
#[derive(Clone, Debug)]
pub(crate) struct CredentialReader {
    source: Credential,
    secrets: Secrets,
    last: Option<Secret>,
}

impl CredentialReader {
    pub(crate) fn new(source: Credential, secrets: Secrets) -> Self {
        Self { source, secrets, last: None }
    }

    /// The credential as it is now, or as it was last if its source cannot be read now; `None` if there is none.
    ///
    /// # Errors
    /// [`ErrorCode::TokenUnreadable`] if it could never be read.
    pub(crate) fn read(&mut self) -> Result<Option<Secret>, ProvisioningError> {
        if self.source == Credential::None {
            return Ok(None);
        }
        match self.read_now() {
            Ok(secret) => {
                self.last = Some(secret.clone());
                Ok(Some(secret))
            }
            Err(detail) => match &self.last {
                Some(last) => {
                    log_line!(Warn, "the token cannot be read, the last one stays in use: {detail}");
                    Ok(Some(last.clone()))
                }
                None => {
                    let error = ProvisioningError::new(ErrorCode::TokenUnreadable, "reading the token", detail);
                    Err(match &self.source {
                        Credential::TokenEnv(_) => error.with_advice("set the variable where the process is started"),
                        Credential::Secret(_) => error.with_advice(Secrets::MISSING),
                        _ => error,
                    })
                }
            },
        }
    }

    /// The value now, or why there is none: names the source, never the value.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn read_now(&self) -> Result<Secret, String> {
        let (text, source) = match &self.source {
            Credential::None => return Err("no source is configured".to_owned()),
            Credential::TokenFile(path) => (read_file(path)?, format!("file {path:?}")),
            Credential::TokenEnv(name) => match std::env::var(name) {
                Ok(value) => (Zeroizing::new(value), format!("environment variable {name:?}")),
                Err(std::env::VarError::NotPresent) => return Err(format!("environment variable {name:?} is not set")),
                Err(std::env::VarError::NotUnicode(_)) => {
                    return Err(format!("environment variable {name:?} is not UTF-8"));
                }
            },
            Credential::Secret(name) => {
                return match self.secrets.get(name) {
                    Some(secret) if !secret.expose().trim().is_empty() => Ok(secret.clone()),
                    Some(_) => Err(format!("secret {name:?} is empty")),
                    None => Err(format!("no secret named {name:?} was handed to the builder")),
                };
            }
        };
        match text.trim() {
            "" => Err(format!("{source} is empty")),
            token => Ok(Secret::new(token)),
        }
    }
}

fn read_file(path: &str) -> Result<Zeroizing<String>, String> {
    let content = file::read(Path::new(path), MAX_TOKEN)?;
    let text = std::str::from_utf8(&content).map_err(|_| format!("file {path:?} is not UTF-8"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(reader: &mut CredentialReader) -> String {
        reader.read().unwrap().unwrap().expose().to_owned()
    }

    #[test]
    fn consul_point_15_a_rotated_token_file_is_used_at_once_and_the_old_token_kept_while_it_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let mut reader = CredentialReader::new(Credential::TokenFile(path.display().to_string()), Secrets::default());
        assert_eq!(reader.read().unwrap_err().code(), ErrorCode::TokenUnreadable);
        std::fs::write(&path, " first\n").unwrap();
        assert_eq!(value(&mut reader), "first");
        std::fs::write(&path, "second\n").unwrap();
        assert_eq!(value(&mut reader), "second");
        for unusable in ["", "  \n", &"x".repeat(100_000)] {
            std::fs::write(&path, unusable).unwrap();
            assert_eq!(value(&mut reader), "second");
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(value(&mut reader), "second");
        std::fs::create_dir(&path).unwrap();
        assert_eq!(value(&mut reader), "second");
    }

    #[test]
    fn consul_point_14_tokens_come_by_name_and_never_show() {
        let secrets = Secrets::new([("consul".to_owned(), Secret::new("hunter2"))]);
        let mut reader = CredentialReader::new(Credential::Secret("consul".into()), secrets.clone());
        assert_eq!(value(&mut reader), "hunter2");
        assert!(!format!("{reader:?}").contains("hunter2"));
        let mut absent = CredentialReader::new(Credential::Secret("other".into()), secrets.clone());
        assert!(absent.read().unwrap_err().detail().contains("other"));
        // Cargo sets this one for every test.
        let mut variable = CredentialReader::new(Credential::TokenEnv("CARGO_PKG_NAME".into()), secrets.clone());
        assert_eq!(value(&mut variable), "cluster-provisioning");
        let unset = Credential::TokenEnv("CLUSTER_PROVISIONING_NOT_SET".into());
        assert_eq!(CredentialReader::new(unset, secrets).read().unwrap_err().code(), ErrorCode::TokenUnreadable);
    }
}
