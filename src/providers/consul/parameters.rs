//! Every parameter of the kind `consul`.

use crate::providers::parameter::{Form, Parameter, Parameters, Preset, SWITCH, millis, secs};
use crate::providers::{connection, tls};

/// The longest name of a service or of where it is, in bytes; Consul's own limit for what DNS shall show is 63.
pub(super) const MAX_NAME: usize = 255;

pub(super) static SERVICE: Parameter = Parameter {
    name: "service",
    default: Preset::Told("required"),
    form: Form::Text(MAX_NAME),
    meaning: "the service's name, which is the cluster's",
};
/// The server refuses more than 10 min.
pub(super) static WAIT: Parameter = Parameter {
    name: "wait",
    default: Preset::Value("60s"),
    form: Form::Duration(secs(1), secs(600)),
    meaning: "how long the server may hold a query that has no news; each asks for up to a quarter more, and from 8 min on \
        for 8 to 10 min",
};
pub(super) static DATACENTER: Parameter = Parameter {
    name: "datacenter",
    default: Preset::Told("the agent's"),
    form: Form::Text(MAX_NAME),
    meaning: "where the service is",
};
pub(super) static NAMESPACE: Parameter = Parameter {
    name: "namespace",
    default: Preset::Told("the token's"),
    form: Form::Text(MAX_NAME),
    meaning: "Consul Enterprise: the namespace of the service",
};
pub(super) static PARTITION: Parameter = Parameter {
    name: "partition",
    default: Preset::Told("the agent's"),
    form: Form::Text(MAX_NAME),
    meaning: "Consul Enterprise: the admin partition of the service",
};
/// It travels in the URL, encoded.
pub(super) static FILTER: Parameter = Parameter {
    name: "filter",
    default: Preset::Told("none"),
    form: Form::Text(4096),
    meaning: "an expression in Consul's filter language that members have to meet, the local node in member mode too; \
        evaluated by the server",
};
pub(super) static CONSISTENCY: Parameter = Parameter {
    name: "consistency",
    default: Preset::Value("default"),
    form: Form::Choice(&["default", "stale", "consistent"]),
    meaning: "who may answer; `stale` spares the leader",
};
pub(super) static MAX_STALE: Parameter = Parameter {
    name: "max-stale",
    default: Preset::Value("10s"),
    form: Form::Duration(millis(100), secs(600)),
    meaning: "an answer of a server that has been without its leader for longer is asked of the leader",
};
pub(super) static REPAIR_GRACE: Parameter = Parameter {
    name: "repair-grace",
    default: Preset::Value("9s"),
    form: Form::Duration(millis(100), secs(600)),
    meaning: "how long members that are gone after an index rollback must stay gone before that is believed; by default \
        three times `ttl`",
};
pub(super) static PROBE_INTERVAL: Parameter = Parameter {
    name: "probe-interval",
    default: Preset::Value("6s"),
    form: Form::Duration(millis(100), secs(30)),
    meaning: "how often the index is asked for beside the watch, unless set by a member every 2 s; every second while \
        something is wrong",
};
pub(super) static ANSWER_TIMEOUT: Parameter = Parameter {
    name: "answer-timeout",
    default: Preset::Value("10s"),
    form: Form::Duration(millis(100), secs(60)),
    meaning: "how much later than due an answer may begin; the body of one has a minute",
};
pub(super) static MAX_BODY: Parameter = Parameter {
    name: "max-body",
    default: Preset::Value("64MiB"),
    form: Form::Size,
    meaning: "the largest answer accepted, decompressed; an instance has about 2.6 kB; answers about the registration may \
        have 64 KiB in any case",
};
pub(super) static TTL: Parameter = Parameter {
    name: "ttl",
    default: Preset::Value("3s"),
    form: Form::Duration(secs(1), secs(60)),
    meaning: "member mode: how long the local node's check passes without a heartbeat; three are sent in that time, \
        and each may take a third of it",
};
/// Consul takes less than a minute for a minute.
pub(super) static DEREGISTER_AFTER: Parameter = Parameter {
    name: "deregister-after",
    default: Preset::Value("60s"),
    form: Form::Duration(secs(60), secs(86400)),
    meaning: "member mode: how long the check may be critical before Consul removes the node",
};
pub(super) static CA_FILE: Parameter = Parameter {
    name: "ca-file",
    default: Preset::Told("the public roots"),
    form: Form::Own("a path"),
    meaning: "a file with the certificates of the authorities that are trusted, all of them, in PEM form; or with the \
        agent's own",
};
pub(super) static CA_PATH: Parameter = Parameter {
    name: "ca-path",
    default: Preset::Told("the public roots"),
    form: Form::Own("a path"),
    meaning: "a folder of such files, at most 1,000; with `ca-file`, both",
};
pub(super) static CLIENT_CERT: Parameter = Parameter {
    name: "client-cert",
    default: Preset::Told("none"),
    form: Form::Own("a path"),
    meaning: "the certificate that is shown to the agent, followed by those between it and its authority",
};
pub(super) static TLS_SERVER_NAME: Parameter = Parameter {
    name: "tls-server-name",
    default: Preset::Told("the host"),
    form: Form::Own("a name"),
    meaning: "the name that the agent is asked for and that its certificate has to hold",
};
pub(super) static ENVIRONMENT: Parameter = Parameter {
    name: "environment",
    default: Preset::Value("off"),
    form: SWITCH,
    meaning: "`on` takes what the definition leaves open from the official client's variables",
};

/// All of them, as the page shows them.
pub(in crate::providers) static ALL: Parameters = Parameters(&[
    &SERVICE,
    &WAIT,
    &DATACENTER,
    &NAMESPACE,
    &PARTITION,
    &FILTER,
    &CONSISTENCY,
    &MAX_STALE,
    &REPAIR_GRACE,
    &PROBE_INTERVAL,
    &connection::PROBE_TIMEOUT,
    &connection::CONNECT_TIMEOUT,
    &ANSWER_TIMEOUT,
    &MAX_BODY,
    &TTL,
    &DEREGISTER_AFTER,
    &CA_FILE,
    &CA_PATH,
    &CLIENT_CERT,
    &tls::CLIENT_KEY,
    &TLS_SERVER_NAME,
    &tls::VERIFY,
    &ENVIRONMENT,
]);

#[cfg(test)]
mod tests {
    use super::ALL;
    use crate::providers::parameter::assert_shown;

    #[test]
    fn p1_1_the_page_shows_the_parameters_of_the_kind_consul_as_they_are() {
        assert_shown(ALL, "consul/parameters.md");
    }
}
