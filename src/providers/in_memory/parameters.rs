//! Every parameter of the kind `in-memory`.

use crate::providers::parameter::{Form, Parameter, Parameters, Preset, millis, secs};

pub(super) static CLUSTER: Parameter = Parameter {
    name: "cluster",
    default: Preset::Told("the only one"),
    form: Form::Own("the name of a cluster"),
    meaning: "which of the factory's clusters",
};
pub(super) static TTL: Parameter = Parameter {
    name: "ttl",
    default: Preset::Value("15s"),
    form: Form::Duration(millis(100), secs(86_400)),
    meaning: "how long the local node's registration lives without being renewed",
};
/// At the most below the promised sign of life, to leave room for a busy machine.
pub(super) static HEARTBEAT: Parameter = Parameter {
    name: "heartbeat",
    default: Preset::Value("2s"),
    form: Form::Duration(millis(10), secs(4)),
    meaning: "how often a stream gives a sign of life, in real time, when nothing happens",
};

/// All of them, as the page shows them.
pub(in crate::providers) static ALL: Parameters = Parameters(&[&CLUSTER, &TTL, &HEARTBEAT]);

#[cfg(test)]
mod tests {
    use super::ALL;
    use crate::providers::parameter::assert_shown;

    #[test]
    fn p1_1_the_page_shows_the_parameters_of_the_kind_in_memory_as_they_are() {
        assert_shown(ALL, "in_memory/parameters.md");
    }
}
