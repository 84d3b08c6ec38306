//! Every parameter of the kind `kubernetes`.

use crate::providers::parameter::{Form, Parameter, Parameters, Preset, SWITCH, millis, secs};
use crate::providers::{connection, tls};

pub(super) static SOURCE: Parameter = Parameter {
    name: "source",
    default: Preset::Value("pods"),
    form: Form::Choice(&["pods", "endpoint-slices"]),
    meaning: "what is watched: pods, or the EndpointSlices of a service",
};
pub(super) static CLUSTER: Parameter = Parameter {
    name: "cluster",
    default: Preset::Told("required for pods without `selector`"),
    form: Form::Own("a label's value"),
    meaning: "the cluster's name, which the label `cluster.proto.actor/cluster` of its pods has",
};
pub(super) static SELECTOR: Parameter = Parameter {
    name: "selector",
    default: Preset::Told("the label of `cluster`"),
    form: Form::Text(4096),
    meaning: "the label selector of the pods, in place of the one of the cluster; evaluated by the server",
};
pub(super) static SERVICE: Parameter = Parameter {
    name: "service",
    default: Preset::Told("required for endpoint-slices"),
    form: Form::Own("a name"),
    meaning: "the service whose EndpointSlices are watched",
};
pub(super) static NAMESPACE: Parameter = Parameter {
    name: "namespace",
    default: Preset::Told("the pod's"),
    form: Form::Own("a name"),
    meaning: "where they are; by default `POD_NAMESPACE`, or the service account's; with a kubeconfig the context's, or \
        `default`",
};
pub(super) static PORT: Parameter = Parameter {
    name: "port",
    default: Preset::Told("none"),
    form: Form::Own("a number or a name"),
    meaning: "the port of a pod without a label of it, or of an endpoint; by default a slice's only one",
};
pub(super) static CONTAINER: Parameter = Parameter {
    name: "container",
    default: Preset::Told("the one with the port"),
    form: Form::Own("a name"),
    meaning: "the container that the node of a pod runs in: while it waits, in CrashLoopBackOff for example, or has ended, \
        the pod is no member; its restarts are new lives of the node, where no annotation says which life it is",
};
pub(super) static REQUIRE_READY: Parameter = Parameter {
    name: "require-ready",
    default: Preset::Value("on"),
    form: SWITCH,
    meaning: "whether only what is ready is a member, as in protoactor-go; `off` where readiness depends on membership",
};
pub(super) static IP_FAMILY: Parameter = Parameter {
    name: "ip-family",
    default: Preset::Value("any"),
    form: Form::Choice(&["any", "ipv4", "ipv6"]),
    meaning: "which address of a pod, or which slices, count",
};
pub(super) static PAGE_SIZE: Parameter = Parameter {
    name: "page-size",
    default: Preset::Value("500"),
    form: Form::Number(1, 10000),
    meaning: "how many objects a page of a list may have; a list of more than 1,000 pages is given up, and then asked for in \
        one piece",
};
pub(super) static MAX_BODY: Parameter = Parameter {
    name: "max-body",
    default: Preset::Value("64MiB"),
    form: Form::Size,
    meaning: "the largest page accepted, decompressed; a pod has 2 to 10 kB; answers about one pod or about rights may have \
        4 MiB in any case",
};
pub(super) static PROBE_INTERVAL: Parameter = Parameter {
    name: "probe-interval",
    default: Preset::Value("6s"),
    form: Form::Duration(millis(100), secs(30)),
    meaning: "how often the server is asked beside the watch whether it lives; every second while something is wrong",
};
pub(super) static ANSWER_TIMEOUT: Parameter = Parameter {
    name: "answer-timeout",
    default: Preset::Value("10s"),
    form: Form::Duration(millis(100), secs(60)),
    meaning: "how long the head of a watch, a line of it, and any other answer may take; a page of a list a minute longer",
};
pub(super) static LIST_INTERVAL: Parameter = Parameter {
    name: "list-interval",
    default: Preset::Value("30m"),
    form: Form::DurationOrOff(secs(1), secs(86400)),
    meaning: "how often everything is listed although no watch asks for it, at a time drawn from the upper half",
};
pub(super) static POD: Parameter = Parameter {
    name: "pod",
    default: Preset::Told("the process's"),
    form: Form::Own("a name"),
    meaning: "member mode: the pod that the process runs in; by default `POD_NAME` or `HOSTNAME`",
};
pub(super) static CREDENTIALS: Parameter = Parameter {
    name: "credentials",
    default: Preset::Told("see above"),
    form: Form::Choice(&["in-cluster", "explicit", "kubeconfig"]),
    meaning: "whether those of the pod's service account are used, by default unless there is an endpoint; or those of a \
        kubeconfig (feature `kubeconfig`)",
};
pub(super) static KUBECONFIG: Parameter = Parameter {
    name: "kubeconfig",
    default: Preset::Told("as kubectl"),
    form: Form::Own("a path"),
    meaning: "the kubeconfig; by default those that `KUBECONFIG` lists, or `~/.kube/config`",
};
pub(super) static CONTEXT: Parameter = Parameter {
    name: "context",
    default: Preset::Told("the current one"),
    form: Form::Own("a name"),
    meaning: "the context of the kubeconfig that says which cluster, user and namespace are meant",
};
pub(super) static SERVICE_ACCOUNT: Parameter = Parameter {
    name: "service-account",
    default: Preset::Told("where the kubelet puts it"),
    form: Form::Own("a path"),
    meaning: "the folder with `token`, `ca.crt` and `namespace` of the service account",
};
pub(super) static CA_FILE: Parameter = Parameter {
    name: "ca-file",
    default: Preset::Told("the service account's, or the public roots"),
    form: Form::Own("a path"),
    meaning: "a file with the certificates of the authorities that are trusted, all of them, in PEM form; or with the \
        server's own",
};
pub(super) static CA_PATH: Parameter = Parameter {
    name: "ca-path",
    default: Preset::Told("none"),
    form: Form::Own("a path"),
    meaning: "a folder of such files, at most 1,000; with `ca-file`, both",
};
pub(super) static CLIENT_CERT: Parameter = Parameter {
    name: "client-cert",
    default: Preset::Told("none"),
    form: Form::Own("a path"),
    meaning: "the certificate that is shown to the server, followed by those between it and its authority",
};
pub(super) static TLS_SERVER_NAME: Parameter = Parameter {
    name: "tls-server-name",
    default: Preset::Told("the host"),
    form: Form::Own("a name"),
    meaning: "the name that the server is asked for and that its certificate has to hold",
};

/// All of them, as the page shows them.
pub(in crate::providers) static ALL: Parameters = Parameters(&[
    &SOURCE,
    &CLUSTER,
    &SELECTOR,
    &SERVICE,
    &NAMESPACE,
    &PORT,
    &CONTAINER,
    &REQUIRE_READY,
    &IP_FAMILY,
    &PAGE_SIZE,
    &MAX_BODY,
    &PROBE_INTERVAL,
    &connection::PROBE_TIMEOUT,
    &connection::CONNECT_TIMEOUT,
    &ANSWER_TIMEOUT,
    &LIST_INTERVAL,
    &POD,
    &CREDENTIALS,
    &KUBECONFIG,
    &CONTEXT,
    &SERVICE_ACCOUNT,
    &CA_FILE,
    &CA_PATH,
    &CLIENT_CERT,
    &tls::CLIENT_KEY,
    &TLS_SERVER_NAME,
    &tls::VERIFY,
]);

#[cfg(test)]
mod tests {
    use super::ALL;
    use crate::providers::parameter::assert_shown;

    #[test]
    fn p1_1_the_page_shows_the_parameters_of_the_kind_kubernetes_as_they_are() {
        assert_shown(ALL, "kubernetes/parameters.md");
    }
}
