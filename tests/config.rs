//! The configuration file: what is read, what is refused and where, and what becomes of it.
#![cfg(feature = "config")]

use std::sync::Arc;
use std::time::Duration;

use cluster_provisioning::*;
use proptest::prelude::*;

const EXAMPLE: &str = include_str!("../docs/config.example.toml");

fn refused(toml: &str) -> ProvisioningError {
    ServiceConfig::from_toml(toml).expect_err(toml)
}

/// A builder that knows the kind `in-memory`, with the settings of that text.
fn applied(toml: &str) -> Result<ServiceBuilder, ProvisioningError> {
    let cluster = InMemoryCluster::new(SystemClock::shared());
    ClusterProvisioningService::builder()
        .factory(Arc::new(InMemoryFactory::new().cluster("demo", &cluster)))
        .configure(&ServiceConfig::from_toml(toml)?)
}

/// Code, field, and how the detail begins.
#[track_caller]
fn assert_refused(error: &ProvisioningError, code: ErrorCode, field: &str, place: &str) {
    let found = (error.code(), error.field().unwrap_or_default());
    assert_eq!(found, (code, field), "{error}");
    assert!(error.detail().starts_with(&format!("{place}: ")), "{error}");
    assert!(!error.advice().is_empty());
}

#[test]
fn p1_1_a_service_is_set_up_by_a_file_as_by_the_builders_own_methods() {
    let text = r#"
        store = "/tmp/providers.jsonl"
        coalescing = "250ms"
        block_absence = "1h"
        slow_bridge_limit = "50ms"
        connectivity_timeout = "3s"
        join_timeout = "1m"
        leave_budget = "4s"
        require_all_providers = true
        epoch_above = 18_000_000_000_000_000_000
        failover = { silence_timeout = "20s", flap_damping = "off", mass_loss_share = 1, max_stale = "10m" }
        suppression = { threshold = 2 }
        providers = [{ id = "a", kind = "in-memory", priority = 7, role = "fallback", parameters = { ttl = "30s" } }]

        [member]
        id = "node-1"
        address = "10.0.0.1"
        port = 7001
        incarnation = 9
        kinds = ["worker"]
        metadata = { zone = "eu" }
    "#;
    let cluster = InMemoryCluster::new(SystemClock::shared());
    let factory = || Arc::new(InMemoryFactory::new().cluster("demo", &cluster));
    let node = ClusterNode::builder("node-1", "10.0.0.1", 7001).incarnation(9).kind("worker").metadata("zone", "eu");
    let failover = FailoverPolicy::default().silence_timeout(Duration::from_secs(20)).flap_damping(None);
    let by_hand = ClusterProvisioningService::builder()
        .factory(factory())
        .store_file("/tmp/providers.jsonl")
        .coalescing(Duration::from_millis(250))
        .block_absence(Duration::from_secs(3600))
        .slow_bridge_limit(Duration::from_millis(50))
        .connectivity_timeout(Duration::from_secs(3))
        .join_timeout(Duration::from_secs(60))
        .leave_budget(Duration::from_secs(4))
        .require_all_providers(true)
        .epoch_above(18_000_000_000_000_000_000)
        .failover(failover.mass_loss_share(1.0).max_stale(Duration::from_secs(600)))
        .suppression(SuppressionSettings::default().threshold(2))
        .provider(
            ProviderDescriptor::new("a", ProviderKind::in_memory())
                .unwrap()
                .priority(7)
                .role(ProviderRole::Fallback)
                .parameter("ttl", "30s"),
        )
        .member(node.build().unwrap());
    assert_eq!(format!("{:#?}", applied(text).unwrap()), format!("{by_hand:#?}"));
}

#[test]
fn p1_1_every_setting_of_the_builder_can_stand_in_a_file() {
    let printed = format!("{:#?}", ClusterProvisioningService::builder());
    let outermost = printed.lines().filter_map(|line| line.strip_prefix("    ")).filter(|line| !line.starts_with(' '));
    let settings =
        outermost.filter_map(|line| line.split_once(": ")).map(|(name, _)| name).filter(|name| *name != "kinds");
    let unknown = refused("no_such_setting = 1");
    let (_, known) = unknown.detail().split_once("there are: ").unwrap();
    let known: Vec<_> = known.split(", ").collect();
    for setting in settings.chain(["store"]) {
        assert!(known.contains(&setting), "{setting}");
    }
    assert_eq!(known.len(), 13);
}

#[test]
fn p1_1_what_a_file_leaves_out_has_the_builders_defaults() {
    let silent = ServiceBuilder::from_config(&ServiceConfig::from_toml("").unwrap()).unwrap();
    assert_eq!(format!("{silent:#?}"), format!("{:#?}", ClusterProvisioningService::builder()));
    assert_eq!(ServiceConfig::from_json("{}").unwrap(), ServiceConfig::default());
}

#[test]
fn p1_1_what_is_written_is_read_again_from_either_format() {
    let config = ServiceConfig::from_toml(EXAMPLE).unwrap();
    let json = serde_json::to_string_pretty(&config).unwrap();
    assert_eq!(ServiceConfig::from_json(&json).unwrap(), config);
    let mut off = ServiceConfig::default();
    off.failover = FailoverPolicy::default().flap_damping(None);
    let json = serde_json::to_string(&off).unwrap();
    assert_eq!(ServiceConfig::from_json(&json).unwrap(), off);
    assert_eq!(ServiceConfig::from_json(&json.replace("\"off\"", "null")).unwrap(), off);
    assert_eq!(serde_json::from_str::<ServiceConfig>(&json).unwrap(), off, "as a part of the host's own configuration");
}

#[cfg(all(feature = "consul", feature = "gossip", feature = "kubernetes", unix))]
#[test]
fn p1_1_the_example_can_be_applied_and_names_its_providers_and_member() {
    let config = ServiceConfig::read(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/config.example.toml")).unwrap();
    let ids: Vec<_> = config.providers.iter().map(|provider| provider.id.as_str()).collect();
    assert_eq!(ids, ["consul-a", "pods", "gossip"]);
    let printed = format!("{:?}", ServiceBuilder::from_config(&config).unwrap());
    assert!(printed.contains("member: Some(\"orders-1\")"), "{printed}");
}

#[cfg(feature = "consul")]
#[test]
fn p1_1_the_file_in_the_readme_can_be_applied_and_a_mistake_in_it_is_told_as_shown_there() {
    let section = include_str!("../README.md").split("\n## Configuration file\n").nth(1).unwrap();
    let block =
        |language: &str| section.split(&format!("\n```{language}\n")).nth(1).unwrap().split("```").next().unwrap();
    applied(block("toml")).unwrap();
    let told = applied(&block("toml").replace("\"5m\"", "\"11m\"")).unwrap_err().to_string();
    let shown = block("text").replace("\"/etc/orders/cluster.toml\", ", "");
    assert!(told.starts_with(shown.trim_end().trim_end_matches('…')), "{told}");
}

#[cfg(feature = "consul")]
#[test]
fn p1_1_a_wrong_parameter_is_found_with_its_provider_field_line_and_column() {
    let text = r#"[[providers]]
id = "a"
kind = "consul"
endpoints = ["http://127.0.0.1:8500"]
parameters = { service = "orders" }

[[providers]]
id = "b"
kind = "consul"
endpoints = ["http://127.0.0.1:8500"]
[providers.parameters]
service = "orders"
wait = "11m"
"#;
    let error = applied(text).unwrap_err();
    assert_refused(&error, ErrorCode::InvalidValue, "providers[1].parameters.wait", "line 13, column 8");
    assert_eq!(error.provider().map(ProviderId::as_str), Some("b"));
    assert!(error.advice().starts_with("correct wait: how long the server may hold a query"), "{error}");
    let error = applied(&text.replace("wait =", "wiat =")).unwrap_err();
    assert_refused(&error, ErrorCode::UnknownField, "providers[1].parameters.wiat", "line 13, column 8");
    assert_eq!(error.advice(), "write wait, if that is meant, or remove the field");
    let error = applied(&text.replace("wait = \"11m\"", "").replacen("service = \"orders\"", "", 2)).unwrap_err();
    assert_refused(&error, ErrorCode::MissingField, "providers[0].parameters.service", "line 5, column 14");
    let error = applied(&text.replacen("http://127.0.0.1:8500", "http://me:hunter2@x", 1)).unwrap_err();
    assert_refused(&error, ErrorCode::InvalidValue, "providers[0].endpoints[0]", "line 4, column 14");
    assert!(!error.to_string().contains("hunter2"));

    let json = r#"{"providers": [
        {"id": "a", "kind": "consul", "endpoints": ["http://x"], "parameters": {"service": "s", "wait": "0s"}}]}"#;
    let error = ServiceBuilder::from_config(&ServiceConfig::from_json(json).unwrap()).unwrap_err();
    assert_refused(&error, ErrorCode::InvalidValue, "providers[0].parameters.wait", "line 2, column 105");
}

#[test]
fn p1_1_a_setting_out_of_range_is_found_with_its_path_line_and_column() {
    let provider = "[[providers]]\nid = \"a\"\nkind = \"in-memory\"\n";
    for (text, code, field, place) in [
        ("coalescing = \"61s\"", ErrorCode::InvalidValue, "coalescing", "line 1, column 14"),
        (
            "[failover]\nsilence_timeout = \"1s\"",
            ErrorCode::InvalidValue,
            "failover.silence_timeout",
            "line 2, column 19",
        ),
        ("[failover]\nguard_share = nan", ErrorCode::InvalidValue, "failover.guard_share", "line 2, column 15"),
        ("failover.mass_loss_share = -inf", ErrorCode::InvalidValue, "failover.mass_loss_share", "line 1, column 28"),
        (
            "failover.flap_damping.hold = \"0s\"",
            ErrorCode::InvalidValue,
            "failover.flap_damping.hold",
            "line 1, column 30",
        ),
        ("store = \"\"", ErrorCode::MissingField, "store", "line 1, column 9"),
        ("store = \"a\\u0000b\"", ErrorCode::InvalidValue, "store", "line 1, column 9"),
        (
            "member = { id = \"a\", address = \"x y\", port = 1 }",
            ErrorCode::InvalidNode,
            "member.address",
            "line 1, column 32",
        ),
        (
            "member = { id = \"a\", address = \"x\", port = 0 }",
            ErrorCode::InvalidNode,
            "member.port",
            "line 1, column 44",
        ),
        (
            "member = { id = \"a\\u202e\", address = \"x\", port = 1 }",
            ErrorCode::InvalidNode,
            "member.id",
            "line 1, column 17",
        ),
        (&format!("{provider}priority = -1"), ErrorCode::InvalidValue, "providers[0].priority", "line 4, column 12"),
        (&format!("{provider}{provider}"), ErrorCode::DuplicateName, "providers[1].id", "line 5, column 6"),
        (&provider.replace("in-memory", "cunsul"), ErrorCode::UnknownKind, "providers[0].kind", "line 3, column 8"),
        (
            &format!("{provider}endpoints = [\"a\", \"\"]"),
            ErrorCode::MissingField,
            "providers[0].endpoints[1]",
            "line 4, column 19",
        ),
    ] {
        assert_refused(&applied(text).unwrap_err(), code, field, place);
    }
}

#[test]
fn p1_1_settings_that_the_host_has_changed_are_refused_without_a_place_that_would_mislead() {
    let mut config = ServiceConfig::from_toml("coalescing = \"1s\"").unwrap();
    config.coalescing = Duration::from_secs(61);
    let error = ServiceBuilder::from_config(&config).unwrap_err();
    assert_eq!((error.field(), error.detail()), (Some("coalescing"), "61s is over 60 s"));
}

#[test]
fn p1_1_a_field_that_there_is_not_is_refused_with_the_one_that_was_meant() {
    for (text, field, place, advice) in [
        (
            "colaescing = \"1s\"",
            "colaescing",
            "line 1, column 1",
            "write coalescing, if that is meant, or remove the field",
        ),
        (
            "[failover]\n  cooldwon = \"1s\"",
            "failover.cooldwon",
            "line 2, column 3",
            "write cooldown, if that is meant, or remove the field",
        ),
        (
            "[[providers]]\nid = \"a\"\nkind = \"consul\"\nservice = \"orders\"",
            "providers[0].service",
            "line 4, column 1",
            "write parameters = { service = \"…\" }, if it is one of the kind, or remove the field",
        ),
        ("ärger = 1\n", "", "line 1, column 1", ""),
        ("\"x y\" = 1\n", "\"x y\"", "line 1, column 1", ErrorCode::UnknownField.advice()),
    ] {
        let error = refused(text);
        if field.is_empty() {
            assert_eq!(error.code(), ErrorCode::InvalidConfig, "TOML's bare keys are ASCII");
            continue;
        }
        assert_refused(&error, ErrorCode::UnknownField, field, place);
        assert_eq!(error.advice(), advice);
    }
    let json = ServiceConfig::from_json("{\n \"failover\": {\"cooldwon\": 1}}").unwrap_err();
    assert_refused(&json, ErrorCode::UnknownField, "failover.cooldwon", "line 2, column 15");
}

#[test]
fn p1_1_a_value_of_another_type_is_refused_with_what_it_would_have_to_be() {
    let provider = "[[providers]]\nid = \"a\"\nkind = \"in-memory\"\n";
    for (text, code, field, detail) in [
        ("coalescing = 5", ErrorCode::InvalidValue, "coalescing", "it is a number, not a text"),
        (
            "coalescing = \"-5s\"",
            ErrorCode::InvalidValue,
            "coalescing",
            "\"-5s\" is no duration such as 1500ms, 30s, 10m or 1h, of 24 h at most",
        ),
        ("coalescing = 1979-05-27", ErrorCode::InvalidValue, "coalescing", "it is a date, not a text"),
        (
            "epoch_above = -1",
            ErrorCode::InvalidValue,
            "epoch_above",
            "it is -1, not a whole number from 0 to 18446744073709551615",
        ),
        ("epoch_above = 99999999999999999999", ErrorCode::InvalidValue, "", "the number is too large"),
        (
            "require_all_providers = \"yes\"",
            ErrorCode::InvalidValue,
            "require_all_providers",
            "it is a text, not true or false",
        ),
        ("failover.standby = \"hto\"", ErrorCode::InvalidValue, "failover.standby", "it is none of these: hot, cold"),
        (
            "failover.max_stale = \"soon\"",
            ErrorCode::InvalidValue,
            "failover.max_stale",
            "\"soon\" is no duration such as 1500ms, 30s, 10m or 1h, of 24 h at most",
        ),
        (
            "failover.mass_loss_share = \"half\"",
            ErrorCode::InvalidValue,
            "failover.mass_loss_share",
            "it is a text, not a number",
        ),
        ("failover = []", ErrorCode::InvalidValue, "failover", "it is a list, not a table"),
        ("providers = {}", ErrorCode::InvalidValue, "providers", "it is a table, not a list"),
        (
            "member = { id = \"a\", address = \"x\", port = 65536 }",
            ErrorCode::InvalidValue,
            "member.port",
            "it is 65536, not a whole number from 0 to 65535",
        ),
        ("member = { id = \"a\", address = \"x\" }", ErrorCode::MissingField, "member.port", "it is required"),
        ("providers = [{ id = \"a\" }]", ErrorCode::MissingField, "providers[0].kind", "it is required"),
        (
            "providers = [{ id = \"a b\", kind = \"x\" }]",
            ErrorCode::InvalidValue,
            "providers[0].id",
            "no name: only letters, digits, `-`, `_` and `.` are allowed",
        ),
        (
            &format!("{provider}parameters.ttl = 15"),
            ErrorCode::InvalidValue,
            "providers[0].parameters.ttl",
            "it is a number, not a text",
        ),
    ] {
        let error = refused(text);
        assert_eq!((error.code(), error.field().unwrap_or_default()), (code, field), "{error}");
        let (place, said) = error.detail().split_once(": ").unwrap();
        assert_eq!(said, detail, "{text}");
        assert!(place.starts_with("line "), "{error}");
    }
    assert_eq!(refused("coalescing = 5").advice(), "write it in quotes");
    assert_eq!(refused("failover.standby = \"hto\"").advice(), "write hot, if that is meant");
}

#[test]
fn p1_3_a_secret_is_refused_with_the_remedy_and_never_repeated() {
    let provider = "[[providers]]\nid = \"a\"\nkind = \"in-memory\"\n";
    for (line, field) in [
        ("token = \"hunter2\"", "providers[0].token"),
        ("password = \"hunter2\"", "providers[0].password"),
        ("api_key = \"hunter2\"", "providers[0].api_key"),
        ("credential = \"hunter2\"", "providers[0].credential"),
        ("credential = { token = \"hunter2\" }", "providers[0].credential"),
        ("credential = { value = \"hunter2\" }", "providers[0].credential"),
        ("parameters = { token = \"hunter2\" }", "providers[0].parameters.token"),
    ] {
        let error = applied(&format!("{provider}{line}\n")).unwrap_err();
        assert_eq!(error.field(), Some(field), "{error}");
        assert!(error.detail().starts_with("line 4, column "), "{error}");
        assert!(error.advice().contains("credential = { token-file = "), "{error}");
        let shown = format!("{error} {error:?} {}", serde_json::to_string(&error).unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    for line in [
        "credential = hunter2",
        "credential = [\"hunter2\"]",
        "credential = { token-file = [\"hunter2\"] }",
        "credential = \"hunter2",
    ] {
        let error = refused(&format!("{provider}{line}"));
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        let json = format!(
            r#"{{"providers": [{{"id": "a", "kind": "b", {}]}}"#,
            line.replacen("credential =", "\"credential\":", 1)
        );
        let error = ServiceConfig::from_json(&json).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
    assert_refused(&refused("token = \"hunter2\""), ErrorCode::UnknownField, "token", "line 1, column 1");
}

#[cfg(feature = "consul")]
#[test]
fn p1_3_a_secret_is_named_and_has_to_be_handed_over_first() {
    let text = r#"providers = [{ id = "a", kind = "consul", endpoints = ["http://x"], parameters = { service = "s" },
                 credential = { secret = "vault" } }]"#;
    let error = applied(text).unwrap_err();
    assert_refused(&error, ErrorCode::TokenUnreadable, "providers[0].credential", "line 2, column 31");
    let config = ServiceConfig::from_toml(text).unwrap();
    assert_eq!(config.providers[0].credential, Credential::Secret("vault".into()));
    let builder = ClusterProvisioningService::builder().secret("vault", Secret::new("hunter2"));
    assert!(builder.configure(&config).is_ok());
}

#[test]
fn p1_1_a_member_without_an_incarnation_begins_a_life_with_each_start() {
    let text =
        "providers = [{ id = \"a\", kind = \"in-memory\" }]\nmember = { id = \"n\", address = \"10.0.0.1\", port = 1 }";
    let before = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    let service = applied(text).unwrap().start().unwrap();
    let node = service.hub().local_node().unwrap();
    assert!(node.incarnation() + 1 >= before && node.incarnation() < before + 60_000, "{node}");
}

#[test]
fn p1_1_a_file_is_read_by_its_ending_and_errors_name_it() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let read = |name: &str, content: &[u8]| ServiceConfig::read(write(name, content));
    assert_eq!(read("a.toml", b"epoch_above = 7").unwrap().epoch_above, 7);
    assert_eq!(read("a.JSON", b"\xef\xbb\xbf{\"epoch_above\": 7}").unwrap().epoch_above, 7);
    assert_eq!(read("b.toml", b"\xef\xbb\xbfepoch_above = 7\r\n").unwrap().epoch_above, 7);

    let path = write("wrong.toml", b"\n\nepoch = 7");
    let place = format!("{path:?}, line 3, column 1");
    assert_refused(&ServiceConfig::read(&path).unwrap_err(), ErrorCode::UnknownField, "epoch", &place);
    let late = ServiceConfig::read(write("late.toml", b"coalescing = \"2m\"")).unwrap();
    let error = ServiceBuilder::from_config(&late).unwrap_err();
    assert!(error.detail().contains("late.toml\", line 1, column 14: "), "{error}");

    let large = vec![b'#'; 1024 * 1024 + 1];
    for (name, content, said) in [
        ("a.yaml", &b"a: b"[..], "is neither .toml nor .json"),
        ("toml", b"", "is neither .toml nor .json"),
        ("c.toml", b"a = 1\n\xff", "line 2: it is not UTF-8"),
        ("d.toml", &large, "is larger than 1048576 bytes"),
    ] {
        let error = read(name, content).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidConfig);
        assert!(error.detail().contains(said) && error.detail().contains(name), "{error}");
    }
    for path in [folder.path().join("absent.toml"), folder.path().with_extension("toml")] {
        let error = ServiceConfig::read(&path).unwrap_err();
        assert_eq!((error.code(), error.doing()), (ErrorCode::InvalidConfig, "reading the configuration"));
    }
    std::fs::create_dir(folder.path().join("folder.toml")).unwrap();
    let error = ServiceConfig::read(folder.path().join("folder.toml")).unwrap_err();
    assert!(error.detail().contains("not a regular file"), "{error}");
}

#[test]
fn p1_1_a_text_that_is_not_of_its_format_is_refused_with_its_place() {
    for (text, place, said) in [
        ("epoch_above = 1\nepoch_above = 2", "line 2, column 1", "duplicate key"),
        ("a = \"x\u{1}\"", "line 1, column 7", "invalid"),
        ("a = ", "line 1, column ", ""),
        ("[failover\n", "line 1, column ", ""),
    ] {
        let error = refused(text);
        assert_eq!(error.code(), ErrorCode::InvalidConfig, "{error}");
        assert!(error.detail().starts_with(place) && error.detail().contains(said), "{error}");
    }
    for (text, place, said) in [
        ("{\"epoch_above\": 1,\n \"epoch_above\": 2}", "line 2, column 2: ", "twice"),
        ("{\"failover\": {},\n\"a\": }", "line 2, column 6: ", "it is no JSON: expected value"),
        ("{\"ä\": \"\u{1}\"}", "line 1, column ", "control character"),
        ("", "line 1, column 1: ", "EOF"),
        ("{} {}", "line 1, column 4: ", "trailing"),
        ("{\"epoch_above\": NaN}", "line 1, column ", "it is no JSON"),
        ("[]", "line 1, column 1: ", "it is a list, not a table"),
        ("{\"failover\":\n\n\n {\"\\ud800\": 1}}", "line 4, column ", "it is no JSON"),
    ] {
        let error = ServiceConfig::from_json(text).unwrap_err();
        assert!(error.detail().starts_with(place) && error.detail().contains(said), "{error}");
    }
}

#[test]
fn p1_1_what_is_huge_or_deep_is_refused_at_once() {
    let n = 200_000;
    let huge = [
        format!("a = {}{}", "[".repeat(n), "]".repeat(n)),
        format!("a = {}1{}", "{a=".repeat(n), "}".repeat(n)),
        vec!["a"; n].join(".") + " = 1",
        format!("[{}]", vec!["a"; n].join(".")),
        format!("a = {}{}", "[".repeat(20), "]".repeat(20)),
        "#".repeat(1024 * 1024 + 1),
    ];
    for text in huge {
        assert_eq!(refused(&text).code(), ErrorCode::InvalidConfig);
    }
    for text in [
        format!("{{\"a\": {}{}}}", "[".repeat(n), "]".repeat(n)),
        format!("{}1{}", "{\"a\":".repeat(n), "}".repeat(n)),
        "[".repeat(n),
        format!("[{}1]", " ".repeat(1024 * 1024)),
    ] {
        assert_eq!(ServiceConfig::from_json(&text).unwrap_err().code(), ErrorCode::InvalidConfig);
    }
    let name = "x".repeat(500_000);
    for error in [
        refused(&format!("{name} = 1")),
        refused(&format!("coalescing = \"{name}\"")),
        refused(&format!("failover.{name} = 1")),
    ] {
        assert!(error.to_string().len() < 1000, "{}", error.to_string().len());
    }
    let many: String = (0..257).map(|n| format!("[[providers]]\nid = \"p{n}\"\nkind = \"in-memory\"\n")).collect();
    let error = applied(&many).unwrap_err();
    assert_refused(&error, ErrorCode::InvalidConfig, "providers", "line 1, column 1");
}

/// Reads a text as both formats, and applies what is read: nothing may panic, and every error has one line.
fn survive(text: &str) -> Result<(), TestCaseError> {
    for read in [ServiceConfig::from_toml(text), ServiceConfig::from_json(text)] {
        let error = match read.map(|config| ServiceBuilder::from_config(&config).map(drop)) {
            Ok(Ok(())) => continue,
            Ok(Err(error)) | Err(error) => error,
        };
        prop_assert!(!error.to_string().chars().any(char::is_control), "{error}");
        prop_assert!(error.to_string().len() < 8000);
    }
    Ok(())
}

proptest! {
    #[test]
    fn p1_1_no_text_makes_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "(?s).{0,80}") {
        survive(&String::from_utf8_lossy(&bytes))?;
        survive(&text)?;
    }

    #[test]
    fn p1_1_no_change_of_a_good_file_makes_the_reader_panic(
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0..12usize, "[\\[\\]{}=\",.\n a-z0-9\\-\u{0}\u{202e}]{0,4}"), 1..6),
        is_json in any::<bool>(),
    ) {
        let mut text: Vec<char> = match is_json {
            false => EXAMPLE.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n").chars().collect(),
            true => serde_json::to_string(&ServiceConfig::from_toml(EXAMPLE).unwrap()).unwrap().chars().collect(),
        };
        for (at, length, put) in cuts {
            let at = at.index(text.len() + 1);
            let end = (at + length).min(text.len());
            text.splice(at..end, put.chars());
        }
        survive(&text.into_iter().collect::<String>())?;
    }
}
