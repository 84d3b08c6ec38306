//! Every parameter of the kind `gossip`.

use crate::providers::parameter::{Form, Parameter, Parameters, Preset, SWITCH, millis, secs};

pub(super) static LABEL: Parameter = Parameter {
    name: "label",
    default: Preset::Told("required"),
    form: Form::Text(64),
    meaning: "the cluster's name: members of clusters with other labels do not hear each other",
};
pub(super) static BIND: Parameter = Parameter {
    name: "bind",
    default: Preset::Told("port 7946 of every address"),
    form: Form::Own("an address, with a port or without: `10.0.0.1`, `0.0.0.0:7946`, `[::]:7946`"),
    meaning: "where a member listens, for datagrams and for connections; with port 0 at any port that is free",
};
pub(super) static ADVERTISE_PORT: Parameter = Parameter {
    name: "advertise-port",
    default: Preset::Told("that of `bind`"),
    form: Form::Own("1 to 65535"),
    meaning: "the port at which others reach the member, at the node's own address, where ports are mapped",
};
pub(super) static PROFILE: Parameter = Parameter {
    name: "profile",
    default: Preset::Value("lan"),
    form: Form::Choice(&["local", "lan", "wan"]),
    meaning: "how patient the protocol is: `local` for one machine, `lan` for a data centre, `wan` for several",
};
pub(super) static SUSPICION: Parameter = Parameter {
    name: "suspicion",
    default: Preset::Told("by profile: 1500ms, 3s, 15s"),
    form: Form::Own("more than 1250ms, 2500ms, 12500ms by profile; 10m at the most"),
    meaning: "how long a member may contradict before it is declared dead, if several suspect it, in a cluster of ten",
};
pub(super) static QUARANTINE: Parameter = Parameter {
    name: "quarantine",
    default: Preset::Told("by profile: 5s, 10s, 30s"),
    form: Form::Duration(secs(1), secs(600)),
    meaning: "how long a member that died waits before it is let in again, at first; twice as long each time it dies soon after, 10m at most",
};
pub(super) static QUARANTINE_NEW_LIVES: Parameter = Parameter {
    name: "quarantine-new-lives",
    default: Preset::Value("on"),
    form: SWITCH,
    meaning: "whether a process that was started anew waits, too",
};
pub(super) static ISOLATED_MAX: Parameter = Parameter {
    name: "isolated-max",
    default: Preset::Told("by profile: 30s, 60s, 300s"),
    form: Form::DurationOrOff(secs(5), secs(86_400)),
    meaning: "how long a member that hears from nobody keeps the others, before it believes them dead; `off`: for ever",
};
pub(super) static SEEDS_INTERVAL: Parameter = Parameter {
    name: "seeds-interval",
    default: Preset::Told("by profile: 2s, 5s, 20s"),
    form: Form::Duration(millis(500), secs(600)),
    meaning: "how often a member looks for seeds and dead members that are there after all, which is how a partition heals",
};
pub(super) static OBSERVERS: Parameter = Parameter {
    name: "observers",
    default: Preset::Value("256"),
    form: Form::Number(0, 4_096),
    meaning: "how many processes in client mode a member tells its view at a time; it sends others on",
};
pub(super) static METRICS: Parameter = Parameter {
    name: "metrics",
    default: Preset::Value("on"),
    form: SWITCH,
    meaning: "whether a member counts what it does",
};

/// All of them, as the page shows them.
pub(in crate::providers) static ALL: Parameters = Parameters(&[
    &LABEL,
    &BIND,
    &ADVERTISE_PORT,
    &PROFILE,
    &SUSPICION,
    &QUARANTINE,
    &QUARANTINE_NEW_LIVES,
    &ISOLATED_MAX,
    &SEEDS_INTERVAL,
    &OBSERVERS,
    &METRICS,
]);

#[cfg(test)]
mod tests {
    use super::ALL;
    use crate::providers::parameter::assert_shown;

    #[test]
    fn p1_1_the_page_shows_the_parameters_of_the_kind_gossip_as_they_are() {
        assert_shown(ALL, "gossip/parameters.md");
    }

    #[test]
    fn p5_5_the_page_for_operators_shows_them_too() {
        let page = include_str!("../../../docs/running-on-gossip.md");
        assert!(page.contains(&format!("\n## Parameters\n\n{}", include_str!("parameters.md"))));
    }
}
