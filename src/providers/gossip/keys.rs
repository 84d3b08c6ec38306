//! The cluster's keys: read where the definition says, and again now and then, so that they can be changed while members run.

use super::config::Config;
use crate::credential::CredentialReader;
use crate::error::{ErrorCode, ProvisioningError};
use crate::id::ProviderId;
use crate::membership::Keyring;
use crate::secret::{Secret, Secrets};
use crate::sync::{Mutex, lock};
use crate::text::line::log_line;

const READING: &str = "reading the keys of a gossip cluster";

/// See the module.
#[derive(Debug)]
pub(super) struct Keys {
    provider: ProviderId,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    reader: CredentialReader,
    /// As they were read last.
    held: Option<Secret>,
    /// What was wrong the last time, so that it is logged once.
    wrong: Option<String>,
}

impl Keys {
    pub(super) fn new(provider: ProviderId, config: &Config, secrets: Secrets) -> Self {
        let reader = CredentialReader::new(config.keys.clone(), secrets);
        Self { provider, state: Mutex::new(State { reader, held: None, wrong: None }) }
    }

    /// The keys as they are now; none where the definition names none.
    ///
    /// # Errors
    /// [`ErrorCode::TokenUnreadable`] where there is no source, or no keyring in it.
    pub(super) fn read(&self) -> Result<Option<Keyring>, ProvisioningError> {
        let mut state = lock(&self.state);
        let secret = state.reader.read().map_err(|error| error.while_doing(READING).with_provider(&self.provider))?;
        let Some(secret) = secret else { return Ok(None) };
        let keys = Keyring::parse(secret.expose()).map_err(|why| {
            ProvisioningError::new(ErrorCode::TokenUnreadable, READING, why.to_string()).with_provider(&self.provider)
        })?;
        state.held = Some(secret);
        Ok(Some(keys))
    }

    /// The keys, if they are others than before. What cannot be read, or is no keyring, leaves the last ones in force, and is
    /// logged once.
    pub(super) fn changed(&self) -> Option<Keyring> {
        let state = &mut *lock(&self.state);
        let held = state.held.as_ref()?;
        let read = state.reader.read_now().and_then(|secret| match held.expose() == secret.expose() {
            true => Ok(None),
            false => Keyring::parse(secret.expose()).map(|keys| Some((secret, keys))).map_err(|why| why.to_string()),
        });
        let (changed, wrong) = match read {
            Ok(changed) => (changed, None),
            Err(why) => (None, Some(why)),
        };
        if let Some(why) = wrong.as_ref().filter(|_| wrong != state.wrong) {
            log_line!(Warn, "the gossip provider {} keeps its keys, since others cannot be read: {why}", self.provider);
        }
        state.wrong = wrong;
        let (secret, keys) = changed?;
        state.held = Some(secret);
        log_line!(Info, "the gossip provider {} goes on with other keys", self.provider);
        Some(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::{Credential, ProviderDescriptor};

    const KEYS: [&str; 2] =
        ["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="];

    fn keys(credential: Credential) -> Keys {
        let descriptor = ProviderDescriptor::new("g", crate::id::ProviderKind::gossip()).unwrap();
        let config = Config::read(&descriptor.parameter("label", "test").credential(credential)).unwrap();
        Keys::new(ProviderId::of("g"), &config, Secrets::default())
    }

    #[test]
    fn m1_4_other_keys_are_taken_over_once_and_what_cannot_be_read_leaves_the_last_ones_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        std::fs::write(&path, KEYS[0]).unwrap();
        let keys = keys(Credential::TokenFile(path.display().to_string()));
        assert!(keys.changed().is_none(), "none were read yet");
        assert!(keys.read().unwrap().is_some() && keys.changed().is_none());
        for unusable in ["", "no key", "no key"] {
            std::fs::write(&path, unusable).unwrap();
            assert!(keys.changed().is_none());
            assert!(lock(&keys.state).wrong.is_some(), "{unusable:?}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(keys.changed().is_none());
        std::fs::write(&path, KEYS[1]).unwrap();
        assert!(keys.changed().is_some() && keys.changed().is_none());
        assert_eq!(lock(&keys.state).wrong, None);
    }

    #[test]
    fn m1_4_a_cluster_without_keys_never_has_any() {
        let keys = keys(Credential::None);
        assert!(keys.read().unwrap().is_none() && keys.changed().is_none());
        assert_eq!(lock(&keys.state).wrong, None, "nothing is amiss");
    }
}
