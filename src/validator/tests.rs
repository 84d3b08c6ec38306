use super::testing::{definition, validator};
use super::*;

fn refused(descriptor: &ProviderDescriptor) -> (ErrorCode, Option<String>) {
    let error = validator().0.validate(descriptor).unwrap_err();
    assert_eq!(error.provider(), Some(&descriptor.id), "{error}");
    (error.code(), error.field().map(str::to_owned))
}

fn field(name: &str) -> Option<String> {
    Some(name.to_owned())
}

#[test]
fn p1_1_a_good_definition_becomes_a_provider() {
    let (validator, _) = validator();
    let valid = validator.validate(&definition("a").priority(1000)).unwrap();
    assert_eq!(valid.provider.descriptor().id.as_str(), "a");
    assert_eq!((valid.capabilities, valid.shortfall), (Capabilities::WATCH, None));
}

#[test]
fn p1_1_what_the_factory_misses_is_refused_with_the_field() {
    let mut missing = definition("a");
    missing.parameters.clear();
    assert_eq!(refused(&missing), (ErrorCode::MissingField, field("service")));
    assert_eq!(refused(&definition("a").parameter("sevrice", "x")), (ErrorCode::UnknownField, field("sevrice")));
}

#[test]
fn p1_1_an_unknown_kind_is_refused_with_the_known_ones() {
    let mut descriptor = definition("a");
    descriptor.kind = ProviderKind::new("etcd").unwrap();
    let error = validator().0.validate(&descriptor).unwrap_err();
    assert_eq!((error.code(), error.field()), (ErrorCode::UnknownKind, Some("kind")));
    assert!(error.detail().contains("etcd") && error.detail().contains("known kinds: scripted"), "{error}");
}

#[test]
fn p1_1_priorities_lie_between_0_and_1000() {
    for priority in [-1, 1001, i64::MIN, i64::MAX] {
        assert_eq!(refused(&definition("a").priority(priority)), (ErrorCode::InvalidValue, field("priority")));
    }
    assert!(validator().0.validate(&definition("a").priority(0)).is_ok());
}

#[test]
fn p1_1_endpoints_and_parameters_have_limits() {
    let many = (0..65).fold(definition("a"), |descriptor, _| descriptor.endpoint("http://a"));
    assert_eq!(refused(&many), (ErrorCode::InvalidValue, field("endpoints")));
    let many = (0..65).fold(definition("a"), |descriptor, n| descriptor.parameter(format!("p{n}"), ""));
    assert_eq!(refused(&many), (ErrorCode::InvalidValue, field("parameters")));

    let endpoint = |text: &str| refused(&definition("a").endpoint("http://a").endpoint(text));
    assert_eq!(endpoint(""), (ErrorCode::MissingField, field("endpoints[1]")));
    for bad in [&"x".repeat(1025), "http://a\nb", "http://a\0", "a\u{85}b"] {
        assert_eq!(endpoint(bad), (ErrorCode::InvalidValue, field("endpoints[1]")), "{bad:?}");
    }
    let parameter = |name: &str, value: &str| refused(&definition("a").parameter(name, value));
    assert_eq!(parameter("", "x"), (ErrorCode::MissingField, field("parameters")));
    assert_eq!(parameter(&"x".repeat(1025), "x"), (ErrorCode::InvalidValue, field("parameters")));
    assert_eq!(parameter("service", &"x".repeat(4097)), (ErrorCode::InvalidValue, field("service")));
    assert!(validator().0.validate(&definition("a").parameter("service", "x".repeat(4096))).is_ok());
}

#[test]
fn p1_1_an_endpoint_with_a_password_is_refused_without_repeating_it() {
    let error = validator().0.validate(&definition("a").endpoint("https://me:hunter2@consul:8501/v1")).unwrap_err();
    assert_eq!((error.code(), error.field()), (ErrorCode::InvalidValue, Some("endpoints[0]")));
    assert!(!error.to_string().contains("hunter2"), "{error}");
    assert!(validator().0.validate(&definition("a").endpoint("https://consul:8501/v1?who=me@host")).is_ok());
}

#[test]
fn p1_1_a_credential_names_a_source_that_exists() {
    let with = |credential| definition("a").credential(credential);
    assert_eq!(refused(&with(Credential::TokenFile(String::new()))), (ErrorCode::MissingField, field("credential")));
    assert_eq!(refused(&with(Credential::TokenEnv("x".repeat(4097)))), (ErrorCode::InvalidValue, field("credential")));
    assert_eq!(refused(&with(Credential::Secret("vault".into()))), (ErrorCode::TokenUnreadable, field("credential")));
    assert!(validator().0.validate(&with(Credential::Secret("consul".into()))).is_ok());
}

#[test]
fn p5_5_a_factory_that_panics_or_makes_something_else_is_an_error() {
    for place in ["validate", "create"] {
        assert_eq!(refused(&definition("a").parameter("panic", place)), (ErrorCode::ProviderPanicked, None), "{place}");
    }
    assert_eq!(refused(&definition("a").parameter("rename", "b")), (ErrorCode::InvalidConfig, field("id")));
}

#[test]
fn p1_3_a_provider_that_cannot_watch_is_made_with_the_reason_why_not_to_enable_it() {
    let valid = validator().0.validate(&definition("a").parameter("watch", "no")).unwrap();
    let shortfall = valid.shortfall.unwrap();
    assert_eq!(shortfall.code(), ErrorCode::CapabilityMissing);
    assert_eq!(shortfall.provider().map(ProviderId::as_str), Some("a"));
}

#[test]
fn p1_1_p1_3_p1_4_a_dry_run_reports_fields_capabilities_and_connectivity() {
    let (validator, backends) = validator();
    backends.down(&["down"]);
    let judge = |descriptor: &ProviderDescriptor, timeout| validator.dry_run(descriptor, timeout, &CancelToken::new());
    let timeout = Some(Duration::from_secs(60));

    let good = judge(&definition("a"), timeout);
    assert!(good.is_acceptable() && good.connectivity == Some(Ok(())));
    assert_eq!(good.to_string(), "provider a is acceptable; its backend answers");
    assert_eq!(judge(&definition("down"), None).to_string(), "provider down is acceptable; its backend was not asked");
    assert_eq!(backends.take_checked(), ["a"], "asked only where a timeout is given");

    let down = judge(&definition("down"), timeout);
    assert_eq!(down.problems().map(ProvisioningError::code).collect::<Vec<_>>(), [ErrorCode::BackendUnavailable]);
    let blind = judge(&definition("b").parameter("watch", "no"), timeout);
    assert_eq!(blind.problems().map(ProvisioningError::code).collect::<Vec<_>>(), [ErrorCode::CapabilityMissing]);
    assert!(blind.connectivity.is_none());
    let bad = judge(&definition("c").priority(-1), timeout);
    assert_eq!(bad.problems().map(ProvisioningError::code).collect::<Vec<_>>(), [ErrorCode::InvalidValue]);
    assert!(bad.to_string().starts_with("provider c is not acceptable:\n  [invalid-value]"), "{bad}");
    assert_eq!(backends.take_checked(), ["down"]);
}
