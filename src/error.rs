//! Errors, and the codes by which programs and operators tell them apart.
//!
//! An error names its code, what was being done, to which provider, what went wrong, and what the operator can do.
//! Codes are stable: tests and alerts may depend on them. Texts are not.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use crate::id::ProviderId;
use crate::text::line::OneLine;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $category:ident, $advice:literal;)*) => {
        /// What went wrong, as a stable code. The README lists all of them with their advice.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
        }

        impl ErrorCode {
            /// Every code, in the order of the README's table.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name,)*];

            /// The code as it is printed, logged and documented; never changes for a given meaning.
            pub const fn as_str(self) -> &'static str {
                match self { $(ErrorCode::$name => $code,)* }
            }

            /// Which part of the work failed.
            pub const fn category(self) -> ErrorCategory {
                match self { $(ErrorCode::$name => ErrorCategory::$category,)* }
            }

            /// What the operator can do about it, in one sentence.
            pub const fn advice(self) -> &'static str {
                match self { $(ErrorCode::$name => $advice,)* }
            }
        }
    };
}

/// Which part of the work failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ErrorCategory {
    /// A definition, setting or argument was refused.
    Validation,
    /// A backend could not be reached, or answered with something unusable.
    Connection,
    /// A provider's stream ended, failed or fell silent.
    Stream,
    /// No provider can serve, or a switch was refused.
    Failover,
    /// The store of provider definitions could not be read or written.
    Store,
    /// A call came at the wrong time or place.
    Control,
    /// The host's own callback misbehaved.
    Bridge,
}

impl ErrorCategory {
    /// The category as it is printed and documented.
    pub const fn as_str(self) -> &'static str {
        match self {
            ErrorCategory::Validation => "validation",
            ErrorCategory::Connection => "connection",
            ErrorCategory::Stream => "stream",
            ErrorCategory::Failover => "failover",
            ErrorCategory::Store => "store",
            ErrorCategory::Control => "control",
            ErrorCategory::Bridge => "bridge",
        }
    }
}

impl Serialize for ErrorCategory {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl fmt::Display for ErrorCategory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

error_codes! {
    /// A setting or definition is wrong in a way that no narrower code names.
    InvalidConfig = "invalid-config", Validation, "correct the setting that the message names";
    /// A required field is absent or empty.
    MissingField = "missing-field", Validation, "give the field that the message names a value";
    /// A field is not known, for this kind of provider or in a configuration.
    UnknownField = "unknown-field", Validation, "remove the field or correct its spelling";
    /// A field has a value that is malformed or out of range.
    InvalidValue = "invalid-value", Validation, "correct the value as the message says";
    /// No factory is registered for this kind of provider.
    UnknownKind = "unknown-kind", Validation, "register a factory for the kind with the builder, or correct the kind";
    /// A provider of that name is registered already; the existing one stays.
    DuplicateName = "duplicate-name", Validation, "choose another name or remove the existing provider first";
    /// The provider lacks a capability that it needs to be enabled.
    CapabilityMissing = "capability-missing", Validation, "use a provider that can watch, or leave it disabled";
    /// Too many validation failures in a short time: enabling providers is suppressed for a while.
    EnablingSuppressed = "enabling-suppressed", Validation, "correct the definitions, then wait or lift the suppression";
    /// A provider's backend has not answered since it was defined: it is not accepted yet, and asked again.
    ProviderPending = "provider-pending", Validation, "see to it that its backend answers, or correct or remove its definition";
    /// No provider is configured at all.
    NoProviders = "no-providers", Validation, "configure at least one provider";
    /// A node's id, address, port, kinds or metadata are unusable.
    InvalidNode = "invalid-node", Validation, "correct what the node registers";
    /// The backend refused the connection, broke it or answered with a server error.
    BackendUnavailable = "backend-unavailable", Connection, "check that the backend runs and is reachable from here";
    /// The backend did not answer in time.
    Timeout = "timeout", Connection, "check the backend's load and the network path to it";
    /// The backend's index went backwards; the watch starts over.
    IndexRollback = "index-rollback", Connection, "none needed; if it repeats, check the backend for restores or restarts";
    /// The backend refused the credentials or their rights do not suffice.
    AccessDenied = "access-denied", Connection, "check the token and the rights that it has";
    /// The token could not be read from its file, environment variable or secret.
    TokenUnreadable = "token-unreadable", Connection, "check that the token's source exists and is readable";
    /// A file of certificates or keys could not be read, or does not hold what its field says.
    CertificateUnreadable = "certificate-unreadable", Connection, "check that the file exists, is readable and holds what its field says, in PEM form";
    /// TLS: the backend's certificate was not accepted here, or ours was not accepted there.
    CertificateRejected = "certificate-rejected", Connection, "check the authorities that are trusted, the certificates' dates and names, and whether the backend asks for a client certificate";
    /// The backend's answer is not what the protocol promises.
    MalformedAnswer = "malformed-answer", Connection, "check that the address is the backend itself and not a proxy's error page";
    /// The backend's answer is larger than the configured cap.
    AnswerTooLarge = "answer-too-large", Connection, "raise the cap if the answer is genuine";
    /// The backend redirected the request elsewhere; credentials are not sent along.
    RedirectRefused = "redirect-refused", Connection, "configure the address that the redirect names if it is genuine";
    /// The provider's stream came to its end.
    StreamEnded = "stream-ended", Stream, "none needed if it is rare, since it is opened again; else check the backend and the network path to it";
    /// The provider's stream failed.
    StreamFailed = "stream-failed", Stream, "see the provider's own error; the stream is opened again";
    /// The provider's stream gave no sign of life for the silence timeout.
    StreamSilent = "stream-silent", Stream, "check the backend and the network path to it";
    /// The provider's stream reports far more than anyone could use, and is made to wait.
    StreamFloods = "stream-floods", Stream, "report the rate to the provider's author; the others are served as before";
    /// The provider does not yet believe its backend's answer and checks it again; the last known good set stays.
    DoubtfulAnswer = "doubtful-answer", Stream, "none needed if it passes; else check the backend for lost state or rights";
    /// The provider's data has not been refreshed for twice its refresh interval.
    DataOverdue = "data-overdue", Stream, "check the backend's load";
    /// The provider's code, or its factory's, panicked.
    ProviderPanicked = "provider-panicked", Stream, "report the panic to the provider's author; a stream is opened again";
    /// The provider is not healthy enough for what was asked.
    ProviderUnhealthy = "provider-unhealthy", Failover, "restore the provider or choose another";
    /// Every provider is unavailable: no new placements until one recovers.
    ProvisioningUnavailable = "provisioning-unavailable", Failover, "restore any one of the providers";
    /// No snapshot has been delivered yet.
    NoSnapshot = "no-snapshot", Failover, "wait until a provider has delivered its first snapshot";
    /// The last known good data is older than the configured limit.
    DataStale = "data-stale", Failover, "restore the provider or raise the limit";
    /// A switch or update would lose too many members at once and is held back for a while.
    MassLossHeld = "mass-loss-held", Failover, "check the provider; a genuine loss is believed after a while, or at once if the provider is pinned";
    /// Members leave and return again and again, and their leaves are held for a while.
    MembersFlap = "members-flap", Failover, "find out what registers and deregisters them in turn: a check that passes and fails, two processes with one id, one that restarts again and again";
    /// A standby shows mostly other members than the provider followed, and its definition does not say that it may.
    StandbyDiffers = "standby-differs", Failover, "give its definition the role fallback if that is meant; else check what it watches";
    /// The store's file is damaged: not valid JSON Lines, torn or incomplete.
    StoreCorrupt = "store-corrupt", Store, "restore the file from a backup or move it away to start from the builder's definitions";
    /// The store's file is not one of ours.
    StoreForeign = "store-foreign", Store, "configure another path; the file has not been touched";
    /// The store's file was written by a newer version.
    StoreVersion = "store-version", Store, "upgrade, or move the file away";
    /// Another service holds the store, in this process or another.
    StoreLocked = "store-locked", Store, "shut the other service down or give each its own path";
    /// The store's file is not the one that was loaded or saved last: someone replaced it while the service ran.
    StoreReplaced = "store-replaced", Store, "restart the service to use that file, or move it away to keep what is in force; it has not been touched";
    /// The store could not be read or written.
    StoreIo = "store-io", Store, "check the path, its permissions and the free space";
    /// The clock is behind an earlier start of the service, and nothing remembers the epochs of earlier starts.
    ClockSetBack = "clock-set-back", Control, "set the clock, keep a store, or hand the builder the last epoch with epoch_above";
    /// The service has stopped.
    Stopped = "stopped", Control, "build and start a new service";
    /// The service is draining: nothing new is accepted.
    Draining = "draining", Control, "none; the service is shutting down";
    /// A blocking call was made inside a callback of the hub.
    WouldBlock = "would-block", Control, "do not wait inside a callback; keep the ticket and wait elsewhere";
    /// The hub's inbox is full.
    InboxFull = "inbox-full", Control, "try again; if it repeats, look for a slow bridge";
    /// No provider of that name is registered.
    UnknownProvider = "unknown-provider", Control, "check the name against the registered providers";
    /// No entry of that node and source is in the block list.
    NotBlocked = "not-blocked", Control, "check the node id and the source against the block list";
    /// The block list has reached its limit.
    BlockListFull = "block-list-full", Control, "lift entries that are no longer needed";
    /// The wait ended before the thing waited for.
    WaitTimedOut = "wait-timed-out", Control, "wait longer, or ask explain() what is missing";
    /// The operating system refused a thread.
    ThreadRefused = "thread-refused", Control, "raise the process's thread or memory limit";
    /// Registering the local node failed with every provider that can register it.
    RegistrationFailed = "registration-failed", Connection, "check the backend's state and the token's rights to register";
    /// Another process is registered under the local node's id.
    NodeIdTaken = "node-id-taken", Connection, "give each process a node id of its own, and stop one of the two";
    /// The backend accepted the local node's registration, and does not show it.
    RegistrationUnseen = "registration-unseen", Connection, "look into the agent's log for why it cannot write its state to the servers";
    /// A check that is not the registration's own keeps the local node out.
    CheckFailing = "check-failing", Connection, "correct what is checked, or remove the check";
    /// Members of a gossip cluster do not let the local node in.
    AdmissionRefused = "admission-refused", Connection, "wait until the time that the message names, or have an operator lift what keeps the node out";
    /// The local node hears from no other member of its gossip cluster.
    Isolated = "isolated", Connection, "check this host's network, and that datagrams and connections pass between the members";
    /// The system refused an address and port to listen at.
    ListenFailed = "listen-failed", Connection, "give an address of this host and a port that is free";
    /// A membership is asked for something that has not been started, or has ended.
    NotStarted = "not-started", Control, "wait until the provider has joined, or start the service";
    /// The metrics that were asked for are disabled.
    MetricsDisabled = "metrics-disabled", Control, "enable them in the provider's definition";
    /// The provider cannot do what was asked (join, leave).
    Unsupported = "unsupported", Control, "use a provider with that capability";
    /// A bridge's callback panicked; the hub went on.
    BridgePanicked = "bridge-panicked", Bridge, "correct the bridge; its state may have missed this delivery";
    /// A bridge's callback took longer than the configured limit.
    BridgeSlow = "bridge-slow", Bridge, "move slow work out of the callback";
}

impl ErrorCode {
    /// Whether the backend did not answer at all: what is asked of it may succeed later without anything being changed.
    pub(crate) fn is_outage(self) -> bool {
        matches!(self, ErrorCode::BackendUnavailable | ErrorCode::Timeout)
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error of this library: a stable [code](ErrorCode), what was being done, to which provider, what went wrong, and
/// what the operator can do. Cheap to clone. Never carries a secret.
///
/// Its parts are as they were said, by a backend perhaps. `Display` and `Debug` are one line, whatever was said: line
/// breaks, control characters, bidirectional marks and characters of no width are escaped.
#[derive(Clone, PartialEq, Eq)]
pub struct ProvisioningError(Arc<Inner>);

#[derive(Clone, PartialEq, Eq)]
struct Inner {
    code: ErrorCode,
    doing: Cow<'static, str>,
    detail: Cow<'static, str>,
    field: Option<Cow<'static, str>>,
    provider: Option<ProviderId>,
    /// Where it differs from the code's.
    advice: Option<Cow<'static, str>>,
}

impl ProvisioningError {
    /// An error of that code while `doing` something ("opening the store"), with the detail of what went wrong.
    pub fn new(
        code: ErrorCode,
        doing: impl Into<Cow<'static, str>>,
        detail: impl Into<Cow<'static, str>>,
    ) -> ProvisioningError {
        let (doing, detail) = (doing.into(), detail.into());
        Self(Arc::new(Inner { code, doing, detail, field: None, provider: None, advice: None }))
    }

    /// The same error, naming the provider it concerns.
    #[must_use]
    pub fn with_provider(mut self, provider: &ProviderId) -> Self {
        Arc::make_mut(&mut self.0).provider = Some(provider.clone());
        self
    }

    /// The same error, naming the field that was refused.
    #[must_use]
    pub fn with_field(mut self, field: impl Into<Cow<'static, str>>) -> Self {
        Arc::make_mut(&mut self.0).field = Some(field.into());
        self
    }

    /// The same error with advice of its own, where what can be done is known more closely than its code says: in one
    /// sentence, without a capital or a full stop, as [`ErrorCode::advice`] has it.
    #[must_use]
    pub fn with_advice(mut self, advice: impl Into<Cow<'static, str>>) -> Self {
        Arc::make_mut(&mut self.0).advice = Some(advice.into());
        self
    }

    /// The same error with another detail.
    #[must_use]
    pub(crate) fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        Arc::make_mut(&mut self.0).detail = detail.into();
        self
    }

    /// The same error of something else that was being done.
    #[must_use]
    pub(crate) fn while_doing(mut self, doing: &'static str) -> Self {
        Arc::make_mut(&mut self.0).doing = doing.into();
        self
    }

    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        self.0.code
    }

    /// What was being done.
    pub fn doing(&self) -> &str {
        &self.0.doing
    }

    /// What went wrong, as it was said: it may have line breaks. `Display` escapes them.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// The field that was refused, for validation errors.
    pub fn field(&self) -> Option<&str> {
        self.0.field.as_deref()
    }

    /// The provider it concerns, if any.
    pub fn provider(&self) -> Option<&ProviderId> {
        self.0.provider.as_ref()
    }

    /// Code and detail alone, where the rest is said beside it.
    pub(crate) fn brief(&self) -> String {
        format!("[{}] {}", self.0.code, OneLine(&self.0.detail))
    }

    /// Everything but the advice, for those who repeat it and give an advice of their own.
    pub(crate) fn without_advice(&self) -> String {
        struct Told<'a>(&'a ProvisioningError);
        impl fmt::Display for Told<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.tell(f)
            }
        }
        Told(self).to_string()
    }

    fn tell(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}", self.0.code, OneLine(&self.0.doing))?;
        if let Some(provider) = &self.0.provider {
            write!(f, " (provider {provider})")?;
        }
        if let Some(field) = &self.0.field {
            write!(f, ": field `{}`", OneLine(field))?;
        }
        write!(f, ": {}", OneLine(&self.0.detail))
    }

    /// What the operator can do about it: its own advice, or else its code's.
    pub fn advice(&self) -> &str {
        self.0.advice.as_deref().unwrap_or_else(|| self.0.code.advice())
    }
}

/// In its parts: `code`, `category`, `doing`, `provider`, `field`, `detail`, `advice`.
impl Serialize for ProvisioningError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut error = serializer.serialize_struct("ProvisioningError", 7)?;
        error.serialize_field("code", &self.code())?;
        error.serialize_field("category", &self.code().category())?;
        error.serialize_field("doing", self.doing())?;
        error.serialize_field("provider", &self.provider())?;
        error.serialize_field("field", &self.field())?;
        error.serialize_field("detail", self.detail())?;
        error.serialize_field("advice", self.advice())?;
        error.end()
    }
}

impl fmt::Display for ProvisioningError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tell(f)?;
        write!(f, "; {}", OneLine(self.advice()))
    }
}

impl fmt::Debug for ProvisioningError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProvisioningError({self})")
    }
}

impl std::error::Error for ProvisioningError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn p5_5_every_code_is_unique_kebab_case_and_has_advice() {
        let codes: BTreeSet<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(codes.len(), ErrorCode::ALL.len());
        for code in ErrorCode::ALL {
            assert!(code.as_str().chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{code}");
            assert!(!code.advice().is_empty());
        }
    }

    #[test]
    fn p5_5_an_error_gives_its_own_advice_where_it_has_one() {
        let error = ProvisioningError::new(ErrorCode::StoreLocked, "opening the store", "s.lock is locked");
        assert_eq!(error.advice(), ErrorCode::StoreLocked.advice());
        let error = error.with_advice("shut the other service down");
        assert_eq!(
            error.to_string(),
            "[store-locked] opening the store: s.lock is locked; shut the other service down"
        );
        assert_eq!(serde_json::to_value(&error).unwrap()["advice"], "shut the other service down");
    }

    proptest::proptest! {
        #[test]
        fn p5_5_an_error_is_one_line_and_keeps_what_was_said(doing in "(?s).{0,20}", field in "(?s).{0,20}", detail in "(?s).{0,40}") {
            let error = ProvisioningError::new(ErrorCode::Timeout, doing.clone(), detail.clone()).with_field(field.clone());
            for shown in [error.to_string(), format!("{error:?}"), error.brief()] {
                proptest::prop_assert!(!crate::text::line::any_misleads(&shown), "{shown:?}");
            }
            proptest::prop_assert_eq!((error.doing(), error.field(), error.detail()), (&*doing, Some(&*field), &*detail));
        }
    }

    #[test]
    fn p5_5_an_error_says_what_was_done_to_which_provider_and_what_to_do() {
        let error = ProvisioningError::new(ErrorCode::Timeout, "watching service orders", "no answer for 75 s")
            .with_provider(&ProviderId::new("consul-a").unwrap());
        assert_eq!(error.code(), ErrorCode::Timeout);
        assert_eq!(error.code().category(), ErrorCategory::Connection);
        assert_eq!(
            error.to_string(),
            "[timeout] watching service orders (provider consul-a): no answer for 75 s; \
             check the backend's load and the network path to it"
        );
    }
}
