//! The README's tables say what the code does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster_provisioning::*;

const README: &str = include_str!("../README.md");

/// The rows of the table under that heading that begins with that column, cell by cell, without the table's head.
fn table(heading: &str, first: &str) -> Vec<Vec<&'static str>> {
    let section = README.split(&format!("\n## {heading}\n")).nth(1).unwrap_or_else(|| panic!("no section {heading}"));
    let section = section.split("\n## ").next().unwrap();
    let begin = section.lines().skip_while(|line| !line.starts_with(&format!("| {first} |")));
    let rows: Vec<_> = begin.skip(2).take_while(|line| line.starts_with('|')).map(cells).collect();
    assert!(!rows.is_empty(), "no table of {first} in {heading}");
    rows
}

fn cells(line: &'static str) -> Vec<&'static str> {
    line.trim_matches('|').split('|').map(str::trim).collect()
}

/// The one name in backticks that the cell consists of.
fn name(cell: &str) -> &str {
    cell.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')).unwrap_or_else(|| panic!("no name: {cell}"))
}

/// The fields of what prints as `Type { field: value, … }`, at its outermost level.
fn fields(value: &impl std::fmt::Debug) -> BTreeMap<String, String> {
    let text = format!("{value:#?}");
    let outermost = text.lines().filter_map(|line| line.strip_prefix("    ")).filter(|line| !line.starts_with(' '));
    let pairs = outermost.filter_map(|line| line.split_once(": "));
    pairs.map(|(field, value)| (field.to_owned(), value.trim_end_matches(',').to_owned())).collect()
}

/// A duration as the README and definitions write it, or as `Debug` prints it.
fn duration(text: &str) -> Option<Duration> {
    let text = text.replace(' ', "");
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic())?);
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "min" | "m" => Duration::from_secs(number * 60),
        "h" => Duration::from_secs(number * 3600),
        _ => return None,
    })
}

#[test]
fn p5_5_every_error_code_stands_in_the_table_with_its_category_and_advice_and_nothing_else_does() {
    let rows = table("Error codes", "code");
    let documented: Vec<_> = rows.iter().map(|row| (name(row[0]), row[1], row[3])).collect();
    let present: Vec<_> =
        ErrorCode::ALL.iter().map(|code| (code.as_str(), code.category().as_str(), code.advice())).collect();
    assert_eq!(documented, present);
    assert!(rows.iter().all(|row| row.len() == 4 && !row[2].is_empty()));
}

#[test]
fn the_smallest_host_stands_in_the_readme_word_for_word_and_is_small() {
    let host = include_str!("../examples/minimal_host.rs");
    assert!(README.contains(&format!("\n```rust,no_run\n{host}```\n")), "the README shows another program");
    assert!(host.lines().count() <= 40);
}

#[test]
fn p5_5_every_reason_of_a_switch_or_pause_is_explained() {
    let section =
        |heading: &str| README.split(&format!("\n## {heading}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
    for reason in SwitchReason::ALL {
        assert!(section("How failover decides").contains(&format!("`{reason}`")), "{reason}");
    }
    for reason in PauseReason::ALL {
        assert!(section("What the view is, and what it is not").contains(&format!("`{reason}`")), "{reason}");
    }
}

#[test]
fn every_setting_stands_in_the_table_of_defaults_with_its_default() {
    let rows = table("Defaults", "setting");
    let documented: BTreeMap<_, _> = rows.iter().map(|row| (name(row[0]), row[1])).collect();
    assert_eq!(documented.len(), rows.len(), "a setting stands there twice");
    let policy = fields(&FailoverPolicy::default());
    let builder = fields(&ClusterProvisioningService::builder());
    let suppression = fields(&SuppressionSettings::default());
    let damping = fields(&FlapDamping::default());
    assert_eq!((policy.len(), suppression.len(), damping.len()), (15, 2, 3), "{policy:?}");
    // Shown in parts, or no setting.
    let in_parts = ["failover", "flap_damping", "suppression", "kinds", "providers", "member"];
    let settings = policy.iter().chain(&suppression).chain(&damping).chain(&builder);
    let settings = settings.filter(|(name, _)| !in_parts.contains(&name.as_str()));
    let mut checked = BTreeSet::from(["priority", "role", "member", "store", "clock"]);
    for (setting, value) in settings {
        let Some((setting, shown)) = documented.get_key_value(setting.as_str()) else { panic!("{setting} is missing") };
        let same = match duration(shown) {
            Some(shown) => Some(shown) == duration(value),
            None => shown.eq_ignore_ascii_case(value) || (*shown == "off" && value == "None"),
        };
        assert!(same, "{setting} is {value}, not {shown}");
        checked.insert(setting);
    }
    assert_eq!(documented.keys().copied().collect::<BTreeSet<_>>(), checked);
    let descriptor = ProviderDescriptor::new("a", ProviderKind::in_memory()).unwrap();
    assert_eq!(documented["priority"], descriptor.priority.to_string());
    assert_eq!(documented["role"], descriptor.role.to_string());
    assert_eq!((documented["member"], builder["member"].as_str()), ("none", "None"));
    for row in &rows {
        let place = row[2];
        assert!(place.starts_with("`FailoverPolicy`") == policy.contains_key(name(row[0])), "{place}");
        let method = place.strip_prefix("`ServiceBuilder::").and_then(|rest| rest.split('`').next());
        let source = include_str!("../src/service/builder.rs");
        assert!(method.is_none_or(|method| source.contains(&format!("pub fn {method}("))), "{place}");
    }
}

/// Checks a table of parameters against the factory that reads them: the names are all there are, and each range is
/// what is accepted.
fn check_parameters(heading: &str, page: &str, factory: &dyn ProviderFactory, base: &ProviderDescriptor) {
    let section = README.split(&format!("\n## {heading}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
    assert!(section.contains(&format!("\n\n{page}")), "the README shows other parameters under {heading} than {page}");
    let rows = table(heading, "parameter");
    let unknown = factory.validate(&base.clone().parameter("no-such-parameter", "x")).unwrap_err();
    assert_eq!(unknown.code(), ErrorCode::UnknownField);
    let known = unknown.detail().split("knows only: ").nth(1).unwrap().split(", ").collect::<BTreeSet<_>>();
    assert_eq!(rows.iter().map(|row| name(row[0])).collect::<BTreeSet<_>>(), known);
    for row in &rows {
        let parameter = name(row[0]);
        let Some((low, high)) = row[2].split_once(" to ") else { continue };
        let (Some(low), Some(high)) = (duration(low), duration(high)) else { continue };
        let try_value = |millis: u128| factory.validate(&base.clone().parameter(parameter, format!("{millis}ms")));
        try_value(low.as_millis()).unwrap();
        try_value(high.as_millis()).unwrap();
        for outside in [low.as_millis() - 1, high.as_millis() + 1] {
            let error = try_value(outside).unwrap_err();
            assert_eq!((error.code(), error.field()), (ErrorCode::InvalidValue, Some(parameter)), "{outside} ms");
        }
        if row[1].starts_with("by profile") {
            continue;
        }
        let default = duration(name(row[1])).unwrap_or_else(|| panic!("{parameter} has no default"));
        assert!((low..=high).contains(&default), "the default of {parameter}");
    }
}

#[test]
fn the_parameters_of_the_in_memory_provider_are_as_documented() {
    let cluster = InMemoryCluster::new(SystemClock::shared());
    let factory = InMemoryFactory::new().cluster("demo", &cluster);
    let base = ProviderDescriptor::new("a", ProviderKind::in_memory()).unwrap();
    check_parameters("In memory", include_str!("../src/providers/in_memory/parameters.md"), &factory, &base);
}

#[cfg(feature = "consul")]
#[test]
fn the_parameters_of_the_consul_provider_are_as_documented() {
    let base = ConsulFactory::descriptor("a", "http://127.0.0.1:8500", "orders").unwrap();
    check_parameters("Consul", include_str!("../src/providers/consul/parameters.md"), &ConsulFactory, &base);
}

#[cfg(all(feature = "gossip", unix))]
#[test]
fn the_parameters_of_the_gossip_provider_are_as_documented() {
    let base = GossipFactory::descriptor("a", "orders").unwrap();
    check_parameters("Gossip", include_str!("../src/providers/gossip/parameters.md"), &GossipFactory::new(), &base);
}

#[cfg(feature = "kubernetes")]
#[test]
fn the_parameters_of_the_kubernetes_provider_are_as_documented() {
    let base = KubernetesFactory::descriptor("a", "orders").unwrap().endpoint("https://127.0.0.1:6443");
    let base = base.parameter("namespace", "default");
    check_parameters(
        "Kubernetes",
        include_str!("../src/providers/kubernetes/parameters.md"),
        &KubernetesFactory,
        &base,
    );
}

#[test]
fn p5_1_every_metric_stands_in_the_table() {
    let rows = table("Observing it", "metric");
    let names: BTreeSet<_> = rows.iter().flat_map(|row| row[0].split(", ")).map(|cell| name(cell).to_owned()).collect();
    assert_eq!(names, fields(&ProvisioningMetrics::default()).into_keys().collect::<BTreeSet<_>>());
}

#[test]
fn every_test_that_a_page_on_what_goes_wrong_names_is_there() {
    let pages = [
        include_str!("../docs/failures.md"),
        include_str!("../src/providers/consul/watch/CASES.md"),
        include_str!("../src/providers/kubernetes/watch/CASES.md"),
    ];
    let mut sources = String::new();
    let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
    folders.push(concat!(env!("CARGO_MANIFEST_DIR"), "/tests").into());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.extension() {
                _ if path.is_dir() => folders.push(path),
                Some(extension) if extension == "rs" => sources += &std::fs::read_to_string(path).unwrap(),
                _ => {}
            }
        }
    }
    let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| trouble") && !line.starts_with("| case");
    let rows = pages.into_iter().flat_map(|page| page.lines().filter(is_row));
    let mut named = 0;
    for test in rows.flat_map(|row| cells(row).pop().unwrap().split(", ")).map(name) {
        assert!(sources.contains(&format!("fn {test}()")), "{test}");
        named += 1;
    }
    assert!(named > 90, "{named}");
}
