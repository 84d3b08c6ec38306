//! What a descriptor of the kind `consul` says, read and checked once.

use std::time::Duration;

use super::query::{Consistency, Query};
use crate::error::{ErrorCode, ProvisioningError};
use crate::http::Target;
use crate::provider::ProviderDescriptor;

/// The port of an agent's HTTP API.
const HTTP_PORT: u16 = 8500;
/// The port of an agent's HTTPS API, by Consul's convention.
const HTTPS_PORT: u16 = 8501;
/// Every parameter of the kind.
const PARAMETERS: &[&str] = &[
    "answer-timeout",
    "connect-timeout",
    "consistency",
    "datacenter",
    "deregister-after",
    "max-body",
    "max-stale",
    "probe-interval",
    "probe-timeout",
    "repair-grace",
    "service",
    "ttl",
    "wait",
];
/// The longest service or datacenter name, in bytes; Consul's own limit for what DNS shall show is 63.
const MAX_NAME: usize = 255;
const MIB: usize = 1024 * 1024;

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A checked definition.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) target: Target,
    pub(super) query: Query,
    /// How long the server may hold a watch that has nothing to say.
    pub(super) wait: Duration,
    pub(super) consistency: Consistency,
    /// The greatest age of an answer that is taken without asking the leader.
    pub(super) max_stale: Duration,
    /// How long a set that lost members after a rollback must hold before it is believed.
    pub(super) repair_grace: Duration,
    pub(super) probe_interval: Duration,
    pub(super) probe_timeout: Duration,
    pub(super) connect_timeout: Duration,
    /// How much longer than due an answer may take.
    pub(super) answer_timeout: Duration,
    pub(super) max_body: usize,
    /// How long the local node's check passes without a heartbeat.
    pub(super) ttl: Duration,
    /// How long it may be critical before Consul removes the node.
    pub(super) deregister_after: Duration,
}

impl Config {
    /// Reads the descriptor.
    ///
    /// # Errors
    /// A code of the validation category, with the field and the reason.
    pub(super) fn read(descriptor: &ProviderDescriptor) -> Result<Self, ProvisioningError> {
        descriptor.only_parameters(PARAMETERS)?;
        let ttl = descriptor.duration("ttl", secs(3), secs(1)..=secs(60))?;
        let service = name(descriptor, "service", descriptor.required("service")?)?;
        let datacenter = match descriptor.parameters.get("datacenter") {
            Some(datacenter) => Some(name(descriptor, "datacenter", datacenter)?),
            None => None,
        };
        Ok(Self {
            target: target(descriptor)?,
            query: Query::new(service, datacenter),
            // The server refuses more than 10 min.
            wait: descriptor.duration("wait", secs(60), secs(1)..=secs(600))?,
            consistency: consistency(descriptor)?,
            max_stale: descriptor.duration("max-stale", secs(10), millis(100)..=secs(600))?,
            // Members find the loss of their registration by their heartbeats: three TTLs leave time to repair it.
            repair_grace: descriptor.duration("repair-grace", ttl * 3, millis(100)..=secs(600))?,
            // A sign of life is due every 5 s.
            probe_interval: descriptor.duration("probe-interval", secs(2), millis(100)..=secs(5))?,
            probe_timeout: descriptor.duration("probe-timeout", secs(2), millis(100)..=secs(5))?,
            connect_timeout: descriptor.duration("connect-timeout", secs(2), millis(100)..=secs(30))?,
            answer_timeout: descriptor.duration("answer-timeout", secs(10), millis(100)..=secs(60))?,
            max_body: max_body(descriptor)?,
            ttl,
            // Consul takes less than a minute for a minute.
            deregister_after: descriptor.duration("deregister-after", secs(60), secs(60)..=secs(24 * 3600))?,
        })
    }
}

fn target(descriptor: &ProviderDescriptor) -> Result<Target, ProvisioningError> {
    match descriptor.endpoints.as_slice() {
        [] => Err(descriptor.refuse(ErrorCode::MissingField, "endpoints", "the agent's URL is required")),
        [url] if url.is_empty() => Err(descriptor.refuse(ErrorCode::MissingField, "endpoints", "the URL is empty")),
        [url] => Target::parse(url, HTTP_PORT, HTTPS_PORT)
            .map_err(|reason| descriptor.refuse(ErrorCode::InvalidValue, "endpoints", reason)),
        _ => {
            let reason = "exactly one URL is allowed; define one provider for each agent";
            Err(descriptor.refuse(ErrorCode::InvalidValue, "endpoints", reason))
        }
    }
}

fn name<'a>(
    descriptor: &ProviderDescriptor,
    field: &'static str,
    value: &'a str,
) -> Result<&'a str, ProvisioningError> {
    let refuse = |code, reason: &'static str| Err(descriptor.refuse(code, field, reason));
    match value {
        "" => refuse(ErrorCode::MissingField, "it is empty"),
        // As a path segment these would mean another endpoint, however they are encoded.
        "." | ".." => refuse(ErrorCode::InvalidValue, "it is no name"),
        _ if value.len() > MAX_NAME => refuse(ErrorCode::InvalidValue, "it is longer than 255 bytes"),
        _ if value.chars().any(char::is_control) => refuse(ErrorCode::InvalidValue, "it has control characters"),
        _ => Ok(value),
    }
}

fn consistency(descriptor: &ProviderDescriptor) -> Result<Consistency, ProvisioningError> {
    match descriptor.parameters.get("consistency").map(String::as_str) {
        None | Some("default") => Ok(Consistency::Default),
        Some("stale") => Ok(Consistency::Stale),
        Some("consistent") => Ok(Consistency::Consistent),
        Some(_) => {
            let reason = "it is none of default, stale, consistent";
            Err(descriptor.refuse(ErrorCode::InvalidValue, "consistency", reason))
        }
    }
}

fn max_body(descriptor: &ProviderDescriptor) -> Result<usize, ProvisioningError> {
    let Some(text) = descriptor.parameters.get("max-body") else { return Ok(64 * MIB) };
    let size = match text.strip_suffix("MiB") {
        Some(number) => number.parse::<usize>().ok().and_then(|number| number.checked_mul(MIB)),
        None => text.strip_suffix("KiB").and_then(|number| number.parse::<usize>().ok()?.checked_mul(1024)),
    };
    match size {
        Some(size) if (1024..=1024 * MIB).contains(&size) => Ok(size),
        _ => {
            let reason = "it is no size between 1KiB and 1024MiB such as 64MiB";
            Err(descriptor.refuse(ErrorCode::InvalidValue, "max-body", reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::ProviderKind;

    fn descriptor() -> ProviderDescriptor {
        ProviderDescriptor::new("consul-a", ProviderKind::consul())
            .unwrap()
            .endpoint("http://127.0.0.1:8500")
            .parameter("service", "orders")
    }

    #[test]
    fn p1_1_defaults_are_as_documented() {
        let config = Config::read(&descriptor()).unwrap();
        assert_eq!((config.wait, config.repair_grace), (secs(60), secs(9)));
        assert_eq!((config.probe_interval, config.probe_timeout), (secs(2), secs(2)));
        assert_eq!((config.consistency, config.max_body), (Consistency::Default, 64 * MIB));
    }

    #[test]
    fn p1_1_every_field_is_checked_and_named() {
        let refused = |descriptor: ProviderDescriptor, code, field: &str| {
            let error = Config::read(&descriptor).unwrap_err();
            assert_eq!((error.code(), error.field()), (code, Some(field)), "{error}");
        };
        for (field, bad) in [
            ("wait", "999ms"),
            ("wait", "601s"),
            ("consistency", "eventual"),
            ("max-stale", "0s"),
            ("repair-grace", "99ms"),
            ("probe-interval", "6s"),
            ("probe-timeout", "6s"),
            ("connect-timeout", "31s"),
            ("answer-timeout", "61s"),
            ("max-body", "64"),
            ("max-body", "0MiB"),
            ("max-body", "2000000MiB"),
            ("max-body", "99999999999999999999MiB"),
            ("service", ".."),
            ("service", "a\nb"),
            ("datacenter", "a\tb"),
        ] {
            refused(descriptor().parameter(field, bad), ErrorCode::InvalidValue, field);
        }
        refused(descriptor().parameter("service", "x".repeat(256)), ErrorCode::InvalidValue, "service");
        refused(descriptor().parameter("service", ""), ErrorCode::MissingField, "service");
        refused(descriptor().parameter("datacenter", ""), ErrorCode::MissingField, "datacenter");
        refused(descriptor().parameter("passing", "true"), ErrorCode::UnknownField, "passing");
        refused(descriptor().endpoint("http://127.0.0.1:8501"), ErrorCode::InvalidValue, "endpoints");
        let mut without = descriptor();
        without.endpoints.clear();
        refused(without.clone(), ErrorCode::MissingField, "endpoints");
        refused(without.clone().endpoint(""), ErrorCode::MissingField, "endpoints");
        refused(without.clone().endpoint("unix:///run/consul.sock"), ErrorCode::InvalidValue, "endpoints");
        refused(without.endpoint("http://u:hunter2@h"), ErrorCode::InvalidValue, "endpoints");
    }
}
