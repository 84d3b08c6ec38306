//! What a descriptor of the kind `consul` says, read and checked once.

use std::time::Duration;

use super::environment::{self, TLS};
use super::parameters;
use super::query::{Consistency, Place, Query};
use crate::error::{ErrorCode, ProvisioningError};
use crate::http::Target;
use crate::provider::{Credential, ProviderDescriptor};
use crate::providers::parameter::secs;
use crate::providers::source::{Given, Lookup, Source};
use crate::providers::{connection, tls};

/// The port of an agent's HTTP API.
const HTTP_PORT: u16 = 8500;
/// The port of an agent's HTTPS API, by Consul's convention.
const HTTPS_PORT: u16 = 8501;
/// How often a member probes unless set: a state that was restored beneath it shows by nothing else, and its registration
/// has to be repaired. A client shall cost next to nothing while it idles: for it the table's default holds.
const MEMBER_PROBES: Duration = secs(2);

/// A checked definition.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) target: Target,
    /// Where the token comes from.
    pub(super) credential: Credential,
    pub(super) query: Query,
    /// How long the server may hold a watch that has nothing to say.
    pub(super) wait: Duration,
    pub(super) consistency: Consistency,
    /// The greatest age of an answer that is taken without asking the leader.
    pub(super) max_stale: Duration,
    /// How long a set that lost members after a rollback must hold before it is believed.
    pub(super) repair_grace: Duration,
    /// How often a client probes, and a member.
    probe_intervals: (Duration, Duration),
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
    /// How often the index is asked for beside the watch.
    pub(super) fn probe_interval(&self, is_member: bool) -> Duration {
        let (client, member) = self.probe_intervals;
        if is_member { member } else { client }
    }

    /// Reads the descriptor, and if it says so the environment. Reads no file.
    ///
    /// # Errors
    /// A code of the validation category, with the field or variable and the reason.
    pub(super) fn read(descriptor: &ProviderDescriptor) -> Result<Self, ProvisioningError> {
        Self::read_with(descriptor, &|name| std::env::var_os(name))
    }

    fn read_with(descriptor: &ProviderDescriptor, lookup: Lookup<'_>) -> Result<Self, ProvisioningError> {
        parameters::ALL.check(descriptor)?;
        let source = environment::source(descriptor, lookup)?;
        let ttl = parameters::TTL.duration(descriptor)?;
        let service = name(descriptor, "service", descriptor.required("service")?)?;
        Ok(Self {
            target: target(&source)?,
            credential: source.credential()?,
            query: Query::new(service, &place(&source)?, parameters::FILTER.text(descriptor)?),
            wait: parameters::WAIT.duration(descriptor)?,
            consistency: consistency(descriptor)?,
            max_stale: parameters::MAX_STALE.duration(descriptor)?,
            // Members find the loss of their registration by their heartbeats: three TTLs leave time to repair it.
            repair_grace: parameters::REPAIR_GRACE.duration_or(descriptor, ttl * 3)?,
            probe_intervals: (
                parameters::PROBE_INTERVAL.duration(descriptor)?,
                parameters::PROBE_INTERVAL.duration_or(descriptor, MEMBER_PROBES)?,
            ),
            probe_timeout: connection::PROBE_TIMEOUT.duration(descriptor)?,
            connect_timeout: connection::CONNECT_TIMEOUT.duration(descriptor)?,
            answer_timeout: parameters::ANSWER_TIMEOUT.duration(descriptor)?,
            max_body: parameters::MAX_BODY.size(descriptor)?,
            ttl,
            deregister_after: parameters::DEREGISTER_AFTER.duration(descriptor)?,
        })
    }
}

fn target(source: &Source<'_>) -> Result<Target, ProvisioningError> {
    let descriptor = source.descriptor;
    let target = match descriptor.endpoints.as_slice() {
        [] if source.has_environments_address() => source.address(),
        [] => Err(descriptor.refuse(ErrorCode::MissingField, "endpoints", "the agent's URL is required")),
        [url] if url.is_empty() => Err(descriptor.refuse(ErrorCode::MissingField, "endpoints", "the URL is empty")),
        [url] => Target::parse(url, HTTP_PORT, HTTPS_PORT)
            .map_err(|reason| descriptor.refuse(ErrorCode::InvalidValue, "endpoints", reason)),
        _ => {
            let reason = "exactly one URL is allowed; define one provider for each agent";
            Err(descriptor.refuse(ErrorCode::InvalidValue, "endpoints", reason))
        }
    }?;
    let target = if target.is_tls() {
        target.with_tls(tls::read(source, Some(&TLS))?)
    } else {
        tls::refuse_without_tls(source)?;
        target
    };
    Ok(target.with_authorization(source.authorization()?))
}

fn place(source: &Source<'_>) -> Result<Place, ProvisioningError> {
    let checked = |given: Option<Given<'_>>| match given {
        Some(given) => name(source.descriptor, given.field, &given.text).map(|name| Some(name.to_owned())),
        None => Ok(None),
    };
    Ok(Place {
        datacenter: checked(source.parameter("datacenter")?)?,
        namespace: checked(source.either("namespace", "CONSUL_NAMESPACE")?)?,
        partition: checked(source.either("partition", "CONSUL_PARTITION")?)?,
    })
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
        _ if value.len() > parameters::MAX_NAME => refuse(ErrorCode::InvalidValue, "it is longer than 255 bytes"),
        _ if value.chars().any(char::is_control) => refuse(ErrorCode::InvalidValue, "it has control characters"),
        _ => Ok(value),
    }
}

fn consistency(descriptor: &ProviderDescriptor) -> Result<Consistency, ProvisioningError> {
    Ok(match parameters::CONSISTENCY.choice(descriptor)? {
        Some("stale") => Consistency::Stale,
        Some("consistent") => Consistency::Consistent,
        _ => Consistency::Default,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ProviderKind;

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
        assert_eq!((config.probe_interval(false), config.probe_interval(true)), (secs(6), secs(2)));
        assert_eq!(config.probe_timeout, secs(2));
        let set = Config::read(&descriptor().parameter("probe-interval", "1s")).unwrap();
        assert_eq!((set.probe_interval(false), set.probe_interval(true)), (secs(1), secs(1)));
        assert_eq!((config.consistency, config.max_body), (Consistency::Default, 64 * 1024 * 1024));
    }

    #[test]
    fn p1_1_the_largest_body_is_given_in_binary_units_with_both_ends_allowed() {
        for (text, bytes) in [("1KiB", 1024), ("3KiB", 3072), ("1MiB", 1_048_576), ("1024MiB", 1_073_741_824)] {
            let config = Config::read(&descriptor().parameter("max-body", text)).unwrap();
            assert_eq!(config.max_body, bytes, "{text}");
        }
        assert_eq!(Config::read(&descriptor()).unwrap().max_body, 67_108_864, "64MiB, as documented");
    }

    #[test]
    fn p1_1_times_are_taken_up_to_both_of_their_documented_limits_and_not_beyond() {
        for (field, lowest, highest) in [
            ("wait", 1_000, 600_000),
            ("max-stale", 100, 600_000),
            ("repair-grace", 100, 600_000),
            ("probe-interval", 100, 30_000),
            ("probe-timeout", 100, 5_000),
            ("connect-timeout", 100, 30_000),
            ("answer-timeout", 100, 60_000),
            ("ttl", 1_000, 60_000),
            ("deregister-after", 60_000, 86_400_000),
        ] {
            let read = |millis: u64| Config::read(&descriptor().parameter(field, format!("{millis}ms")));
            assert!(read(lowest).is_ok() && read(highest).is_ok(), "{field}");
            assert!(read(lowest - 1).is_err() && read(highest + 1).is_err(), "{field}");
        }
    }

    #[test]
    fn p1_1_names_and_filters_are_taken_up_to_their_documented_lengths() {
        for (field, longest) in
            [("service", 255), ("datacenter", 255), ("namespace", 255), ("partition", 255), ("filter", 4096)]
        {
            let read = |length: usize| Config::read(&descriptor().parameter(field, "x".repeat(length)));
            assert!(read(1).is_ok() && read(longest).is_ok(), "{field}");
            assert!(read(longest + 1).is_err(), "{field}");
        }
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
            ("probe-interval", "31s"),
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
            ("namespace", "a\tb"),
            ("partition", ".."),
            ("filter", "a\tb"),
            ("environment", "yes"),
            ("ca-file", "ca.pem"),
            ("ca-path", "/ca"),
            ("client-cert", "c.pem"),
            ("client-key", "k.pem"),
            ("tls-server-name", "consul"),
            ("tls-verify", "on"),
        ] {
            refused(descriptor().parameter(field, bad), ErrorCode::InvalidValue, field);
        }
        refused(descriptor().parameter("service", "x".repeat(256)), ErrorCode::InvalidValue, "service");
        refused(descriptor().parameter("service", ""), ErrorCode::MissingField, "service");
        for field in ["datacenter", "namespace", "partition", "filter"] {
            refused(descriptor().parameter(field, ""), ErrorCode::MissingField, field);
        }
        refused(descriptor().parameter("filter", "x".repeat(4097)), ErrorCode::InvalidValue, "filter");
        refused(descriptor().parameter("passing", "true"), ErrorCode::UnknownField, "passing");
        refused(descriptor().endpoint("http://127.0.0.1:8501"), ErrorCode::InvalidValue, "endpoints");
        let mut without = descriptor();
        without.endpoints.clear();
        refused(without.clone(), ErrorCode::MissingField, "endpoints");
        refused(without.clone().endpoint(""), ErrorCode::MissingField, "endpoints");
        refused(without.clone().endpoint("unix:/run/consul.sock"), ErrorCode::InvalidValue, "endpoints");
        let over_unix = without.clone().endpoint("unix:///run/consul.sock");
        #[cfg(unix)]
        refused(over_unix.parameter("ca-file", "ca.pem"), ErrorCode::InvalidValue, "ca-file");
        #[cfg(not(unix))]
        refused(over_unix, ErrorCode::InvalidValue, "endpoints");
        refused(without.endpoint("http://u:hunter2@h"), ErrorCode::InvalidValue, "endpoints");
    }

    #[test]
    fn consul_point_17_with_environment_on_the_official_clients_variables_are_enough() {
        let descriptor = ProviderDescriptor::new("consul-a", ProviderKind::consul()).unwrap();
        let descriptor = descriptor.parameter("service", "orders").parameter("environment", "on");
        let read = |descriptor: &ProviderDescriptor| {
            let lookup = |name: &str| {
                Some(match name {
                    "CONSUL_HTTP_ADDR" => "consul.example:8501".into(),
                    "CONSUL_HTTP_SSL" => "true".into(),
                    "CONSUL_HTTP_TOKEN" | "CONSUL_HTTP_AUTH" => "hunter2".into(),
                    "CONSUL_NAMESPACE" => "team".into(),
                    "CONSUL_PARTITION" => "part".into(),
                    _ => return None,
                })
            };
            Config::read_with(descriptor, &lookup).unwrap()
        };
        let config = read(&descriptor);
        assert_eq!(config.target.base(), "https://consul.example:8501");
        assert_eq!(config.credential, Credential::TokenEnv("CONSUL_HTTP_TOKEN".into()));
        assert_eq!(config.query.agent_scope(), "ns=team&partition=part");
        assert!(!format!("{config:?}").contains("hunter2"));
        let own = read(&descriptor.endpoint("http://10.0.0.1").parameter("namespace", "own"));
        assert_eq!(own.target.base(), "http://10.0.0.1:8500");
        assert_eq!(own.query.agent_scope(), "ns=own&partition=part");
    }
}
