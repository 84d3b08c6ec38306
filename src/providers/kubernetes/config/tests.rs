//! What a definition says, with what a pod is told.

use super::*;
use crate::id::ProviderKind;
use crate::providers::parameter::secs;

fn bare() -> ProviderDescriptor {
    ProviderDescriptor::new("k8s", ProviderKind::kubernetes()).unwrap().parameter("cluster", "orders")
}

fn explicit() -> ProviderDescriptor {
    bare().endpoint("https://10.0.0.1:6443").parameter("namespace", "shop")
}

fn with(descriptor: &ProviderDescriptor, variables: &[(&str, &str)]) -> Result<Config, ProvisioningError> {
    let lookup = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
    Config::read_with(descriptor, &lookup)
}

#[test]
fn p1_1_defaults_are_as_documented() {
    let config = with(&explicit(), &[]).unwrap();
    assert_eq!(config.select, Select::Pods { selector: "cluster.proto.actor/cluster=orders".into() });
    assert_eq!((config.page_size, config.max_body), (500, 64 * 1024 * 1024));
    let rules = PodRules { family: Family::Any, port: None, ready: true, container: None };
    assert_eq!(config.rules, Rules::Pods(rules));
    assert_eq!((config.probe_interval, config.probe_timeout), (secs(6), secs(2)));
    assert_eq!((config.answer_timeout, config.list_interval), (secs(10), Some(secs(1800))));
    let off = with(&explicit().parameter("list-interval", "off"), &[]).unwrap();
    assert_eq!(off.list_interval, None);
    assert_eq!((config.pod, config.credential), (None, Credential::None));
}

#[test]
fn kubernetes_point_17_in_a_pod_the_environment_and_the_service_account_are_enough() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let in_pod = [(HOST, "fd00::1"), (PORT, "443"), ("HOSTNAME", "orders-0")];
    let descriptor = bare().parameter("service-account", path);
    let config = with(&descriptor, &in_pod).unwrap();
    assert_eq!(config.target.base(), "https://[fd00::1]:443");
    assert_eq!(config.credential, Credential::TokenFile(format!("{path}/token")));
    assert_eq!(config.pod.as_deref(), Some("orders-0"));
    let missing = config.namespace().unwrap_err();
    assert_eq!((missing.code(), missing.field()), (ErrorCode::InvalidConfig, Some("namespace")));
    std::fs::write(folder.path().join("namespace"), "shop\n").unwrap();
    assert_eq!(config.namespace().unwrap(), "shop");
    std::fs::write(folder.path().join("namespace"), "../kube-system").unwrap();
    assert!(config.namespace().is_err());
    let told = [in_pod[0], in_pod[1], in_pod[2], ("POD_NAMESPACE", "told"), ("POD_NAME", "named")];
    let config = with(&descriptor, &told).unwrap();
    assert_eq!((config.namespace().unwrap().as_str(), config.pod.as_deref()), ("told", Some("named")));
    let v4 = with(&bare(), &[(HOST, "10.96.0.1"), (PORT, "443")]).unwrap();
    assert_eq!(v4.target.base(), "https://10.96.0.1:443");
    assert_eq!(v4.credential, Credential::TokenFile(format!("{SERVICE_ACCOUNT}/token")));
}

#[test]
fn kubernetes_point_17_outside_of_a_pod_what_is_missing_is_named() {
    let refused = |descriptor: &ProviderDescriptor, variables: &[(&str, &str)]| {
        let error = with(descriptor, variables).unwrap_err();
        (error.code(), error.field().unwrap().to_owned())
    };
    assert_eq!(refused(&bare(), &[]), (ErrorCode::MissingField, HOST.to_owned()));
    assert_eq!(refused(&bare(), &[(HOST, "h")]), (ErrorCode::MissingField, PORT.to_owned()));
    assert_eq!(refused(&bare(), &[(HOST, "h"), (PORT, "x")]), (ErrorCode::InvalidValue, PORT.to_owned()));
    assert_eq!(refused(&bare(), &[(HOST, "a b"), (PORT, "1")]), (ErrorCode::InvalidValue, HOST.to_owned()));
    let own = bare().parameter("credentials", "explicit");
    assert_eq!(refused(&own, &[]), (ErrorCode::MissingField, "endpoints".to_owned()));
    let without_namespace = bare().endpoint("https://h");
    assert_eq!(refused(&without_namespace, &[]), (ErrorCode::MissingField, "namespace".to_owned()));
    let in_clear = explicit().parameter("credentials", "in-cluster");
    assert!(with(&in_clear, &[]).is_ok());
    let mut in_clear = in_clear;
    in_clear.endpoints = vec!["http://10.0.0.1".into()];
    assert_eq!(refused(&in_clear, &[]), (ErrorCode::InvalidValue, "endpoints".to_owned()));
}

#[test]
fn p1_1_every_field_is_checked_and_named() {
    let refused = |descriptor: ProviderDescriptor, code, field: &str| {
        let error = with(&descriptor, &[]).unwrap_err();
        assert_eq!((error.code(), error.field()), (code, Some(field)), "{error}");
    };
    for (field, bad) in [
        ("answer-timeout", "61s"),
        ("cluster", "a b"),
        ("cluster", "-a"),
        ("connect-timeout", "31s"),
        ("container", "a/b"),
        ("context", "a"),
        ("credentials", "service-account"),
        ("kubeconfig", "/x"),
        ("ip-family", "both"),
        ("list-interval", "0s"),
        ("list-interval", "25h"),
        ("list-interval", "never"),
        ("max-body", "64"),
        ("namespace", "Shop"),
        ("namespace", "../x"),
        ("page-size", "0"),
        ("page-size", "10001"),
        ("pod", "a/b"),
        ("port", "0"),
        ("port", "65536"),
        ("port", "HTTP"),
        ("probe-interval", "31s"),
        ("probe-timeout", "6s"),
        ("require-ready", "yes"),
        ("selector", "a\nb"),
        ("service", "orders"),
        ("service-account", "/x"),
        ("source", "endpoints"),
        ("tls-verify", "no"),
    ] {
        refused(explicit().parameter(field, bad), ErrorCode::InvalidValue, field);
    }
    let slices = explicit().parameter("source", "endpoint-slices");
    refused(slices.clone(), ErrorCode::MissingField, "service");
    refused(slices.clone().parameter("service", "a..").parameter("port", "x"), ErrorCode::InvalidValue, "service");
    let slices = slices.parameter("service", "orders");
    refused(slices.clone().parameter("selector", "a=b"), ErrorCode::InvalidValue, "selector");
    refused(slices.clone().parameter("container", "main"), ErrorCode::InvalidValue, "container");
    let config = with(&slices.parameter("require-ready", "off").parameter("port", "http"), &[]).unwrap();
    assert_eq!(config.select, Select::Slices { service: "orders".into() });
    let rules = SliceRules { family: Family::Any, port: Some(Port::Named("http".into())), not_ready: true };
    assert_eq!(config.rules, Rules::Slices(rules));
    let mut without = explicit();
    without.parameters.remove("cluster");
    refused(without.clone(), ErrorCode::MissingField, "cluster");
    assert!(with(&without.parameter("selector", "app in (a, b)"), &[]).is_ok());
    refused(explicit().parameter("no-such", "x"), ErrorCode::UnknownField, "no-such");
    let beside = explicit().parameter("credentials", "kubeconfig");
    let field = if cfg!(feature = "kubeconfig") { "endpoints" } else { "credentials" };
    refused(beside, ErrorCode::InvalidValue, field);
    refused(explicit().endpoint("https://other"), ErrorCode::InvalidValue, "endpoints");
    let mut plain = explicit();
    plain.endpoints = vec!["http://127.0.0.1:8001".into()];
    refused(plain.parameter("ca-file", "ca.pem"), ErrorCode::InvalidValue, "ca-file");
}
