//! How one is let in by the API server: with a token that the definition names, or as a kubeconfig says. Read before
//! each request; told of each refusal.

#[cfg(feature = "kubeconfig")]
use std::sync::Arc;

use super::config::Config;
#[cfg(feature = "kubeconfig")]
use super::kubeconfig;
#[cfg(feature = "kubeconfig")]
use crate::clock::Clock;
use crate::credential::CredentialReader;
use crate::error::ProvisioningError;
use crate::provider::{CancelToken, ProviderEnvironment};
use crate::secret::Secret;

/// How one connection is let in.
#[derive(Clone, Debug)]
pub(super) enum Login {
    Named(CredentialReader),
    #[cfg(feature = "kubeconfig")]
    Kubeconfig(kubeconfig::Login),
}

impl Login {
    pub(super) fn new(config: &Config, environment: &ProviderEnvironment) -> Self {
        #[cfg(feature = "kubeconfig")]
        if let Some(kubeconfig) = &config.kubeconfig {
            let clock: Arc<dyn Clock> = Arc::clone(&environment.clock);
            return Self::Kubeconfig(kubeconfig::Login::new(Arc::clone(kubeconfig), clock));
        }
        Self::Named(CredentialReader::new(config.credential.clone(), environment.secrets.clone()))
    }

    /// The token to show now; `None` if there is none. Runs an exec plugin if one is due, which ends when `cancel` fires.
    ///
    /// # Errors
    /// [`ErrorCode::TokenUnreadable`](crate::ErrorCode::TokenUnreadable); [`ErrorCode::Stopped`](crate::ErrorCode::Stopped)
    /// if `cancel` fired.
    pub(super) fn read(&mut self, cancel: &CancelToken) -> Result<Option<Secret>, ProvisioningError> {
        match self {
            Self::Named(reader) => {
                // Read without waiting for anything.
                _ = cancel;
                reader.read()
            }
            #[cfg(feature = "kubeconfig")]
            Self::Kubeconfig(login) => login.read(cancel),
        }
    }

    /// The server has answered the last request with that status.
    pub(super) fn answered(&mut self, status: u16) {
        match self {
            #[cfg(feature = "kubeconfig")]
            Self::Kubeconfig(login) if status == 401 => login.refused(),
            // Read anew in any case.
            _ => _ = status,
        }
    }
}
