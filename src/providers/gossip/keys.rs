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

    /// The keys, if they are others than before. What cannot be read leaves the last ones in force, and is logged once.
    pub(super) fn changed(&self) -> Option<Keyring> {
        let mut state = lock(&self.state);
        let secret = state.reader.read().ok().flatten()?;
        if state.held.as_ref().is_some_and(|held| held.expose() == secret.expose()) {
            state.wrong = None;
            return None;
        }
        match Keyring::parse(secret.expose()) {
            Ok(keys) => {
                (state.held, state.wrong) = (Some(secret), None);
                log_line!(Info, "the gossip provider {} goes on with other keys", self.provider);
                Some(keys)
            }
            Err(why) => {
                let why = why.to_string();
                if state.wrong.as_ref() != Some(&why) {
                    log_line!(
                        Warn,
                        "the gossip provider {} keeps its keys: the new ones are none: {why}",
                        self.provider
                    );
                    state.wrong = Some(why);
                }
                None
            }
        }
    }
}
