//! The JSON Schema of a configuration, made of the types that read it and the tables of parameters, so that there is no
//! second list of either. It stands in `docs/config.schema.json`: `SCHEMA=write cargo test --features config --lib
//! schema` writes it.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use super::ServiceConfig;
use crate::id::{ProviderId, ProviderKind};
use crate::service::ServiceBuilder;
use crate::text::{DurationText, OrOff, Pause};

const DURATION: &str = "^[0-9]+(ms|s|m|h)$";
const NAME: &str = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$";

macro_rules! inline_schema {
    ($($type:ty = $schema:expr;)*) => { $(
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    )* };
}

inline_schema! {
    DurationText = json_schema!({"type": "string", "pattern": DURATION});
    Pause = json_schema!({"type": "string", "pattern": DURATION});
    ProviderId = json_schema!({"type": "string", "pattern": NAME});
    ProviderKind = json_schema!({"type": "string", "pattern": NAME});
}

impl<T: JsonSchema> JsonSchema for OrOff<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("OrOff_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let on = generator.subschema_for::<T>();
        json_schema!({"anyOf": [{"enum": ["off", null]}, on]})
    }
}

/// The whole.
fn schema() -> Value {
    let mut schema = schemars::schema_for!(ServiceConfig).to_value();
    plain(&mut schema);
    let kinds = crate::providers::parameter_schemas().into_iter().map(|(kind, parameters)| {
        let is_needed = parameters["required"].as_array().is_some_and(|required| !required.is_empty());
        let required: &[&str] = if is_needed { &["parameters"] } else { &[] };
        json!({
            "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
            "then": {"properties": {"parameters": parameters}, "required": required},
        })
    });
    schema["$defs"]["ProviderDescriptor"]["allOf"] = kinds.collect();
    schema
}

/// Makes plain text of what is written for rustdoc.
fn plain(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == "description" => *text = without_links(text),
                    value => plain(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(plain),
        _ => {}
    }
}

/// `[text](target)` and ``[`text`]`` are `text`; the first paragraph says enough, and lines end where the reader's do.
fn without_links(text: &str) -> String {
    let text = text.split("\n\n").next().unwrap().replace('\n', " ");
    let mut plain = String::new();
    let mut rest = text.as_str();
    while let Some((before, link)) = rest.split_once('[') {
        let (shown, after) = link.split_once(']').expect("a link that ends");
        plain.extend([before, shown]);
        rest = match after.strip_prefix('(') {
            Some(target) => target.split_once(')').expect("a target that ends").1,
            None => after,
        };
    }
    plain + rest
}

/// Whether the value is one of the schema; why not.
fn check(schema: &Value, value: &Value, root: &Value) -> Result<(), String> {
    let Some(rules) = schema.as_object() else {
        return if *schema == Value::Bool(false) { Err(format!("{value} is refused")) } else { Ok(()) };
    };
    let fails = |rule: &str| Err(format!("{value} breaks {rule}"));
    let no_fields = Map::new();
    let fields = value.as_object();
    for (rule, is) in rules {
        match rule.as_str() {
            "$schema" | "$defs" | "title" | "description" | "default" | "format" | "then" => {}
            "$ref" => {
                let name = is.as_str().and_then(|name| name.strip_prefix("#/$defs/")).unwrap();
                check(&root["$defs"][name], value, root)?;
            }
            "type" => {
                let is_of = |kind: &Value| match kind.as_str().unwrap() {
                    "string" => value.is_string(),
                    "integer" => value.is_u64() || value.is_i64(),
                    "number" => value.is_number(),
                    "boolean" => value.is_boolean(),
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "null" => value.is_null(),
                    other => panic!("unknown type {other}"),
                };
                let is_any = is.as_array().map_or_else(|| is_of(is), |kinds| kinds.iter().any(is_of));
                if !is_any {
                    return fails(&format!("type {is}"));
                }
            }
            "properties" => {
                for (name, value) in fields.unwrap_or(&no_fields) {
                    is.get(name).map_or(Ok(()), |schema| check(schema, value, root))?;
                }
            }
            "additionalProperties" => {
                let known = rules.get("properties").and_then(Value::as_object).unwrap_or(&no_fields);
                for (_, value) in fields.unwrap_or(&no_fields).iter().filter(|(name, _)| !known.contains_key(*name)) {
                    check(is, value, root)?;
                }
            }
            "required" => {
                let is_missing = |name: &&Value| fields.is_some_and(|all| !all.contains_key(name.as_str().unwrap()));
                if let Some(missing) = is.as_array().unwrap().iter().find(is_missing) {
                    return fails(&format!("required {missing}"));
                }
            }
            "items" => value.as_array().into_iter().flatten().try_for_each(|value| check(is, value, root))?,
            "enum" if is.as_array().unwrap().contains(value) => {}
            "const" if is == value => {}
            "enum" | "const" => return fails(&format!("{rule} {is}")),
            "anyOf" | "oneOf" => {
                let fitting = is.as_array().unwrap().iter().filter(|schema| check(schema, value, root).is_ok()).count();
                if fitting == 0 || (rule == "oneOf" && fitting > 1) {
                    return fails(rule);
                }
            }
            "allOf" => is.as_array().unwrap().iter().try_for_each(|schema| check(schema, value, root))?,
            "if" if check(is, value, root).is_ok() => check(&rules["then"], value, root)?,
            "if" => {}
            "minLength" if value.as_str().is_none_or(|text| text.chars().count() as u64 >= is.as_u64().unwrap()) => {}
            "maxLength" if value.as_str().is_none_or(|text| text.chars().count() as u64 <= is.as_u64().unwrap()) => {}
            "minimum" if value.as_f64().is_none_or(|number| number >= is.as_f64().unwrap()) => {}
            "maximum" if value.as_f64().is_none_or(|number| number <= is.as_f64().unwrap()) => {}
            "minLength" | "maxLength" | "minimum" | "maximum" => return fails(rule),
            "pattern" => {
                let Some(text) = value.as_str() else { continue };
                let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
                let is_duration = !number.is_empty() && ["ms", "s", "m", "h"].contains(&unit);
                let fits = match is.as_str().unwrap() {
                    DURATION => is_duration,
                    "^([0-9]+(ms|s|m|h)|off)$" => is_duration || text == "off",
                    "^[0-9]+(KiB|MiB)$" => !number.is_empty() && ["KiB", "MiB"].contains(&unit),
                    "^[0-9]+$" => !number.is_empty() && unit.is_empty(),
                    NAME => ProviderId::new(text).is_ok(),
                    other => panic!("unknown pattern {other}"),
                };
                if !fits {
                    return fails("pattern");
                }
            }
            other => panic!("unknown rule {other}"),
        }
    }
    Ok(())
}

fn judge(value: &Value) -> Result<(), String> {
    let schema = schema();
    check(&schema, value, &schema)
}

/// A text in TOML as JSON.
fn json_of(toml: &str) -> Value {
    use super::tree::{Node, Value as Said};
    fn convert(node: super::tree::Node) -> Value {
        let Node { value, .. } = node;
        match value {
            Said::Null | Said::Date => panic!("not in a configuration"),
            Said::Bool(value) => value.into(),
            Said::Unsigned(number) => number.into(),
            Said::Negative(number) => number.into(),
            Said::Float(number) => number.into(),
            Said::Text(text) => text.into(),
            Said::List(nodes) => nodes.into_iter().map(convert).collect(),
            Said::Table(entries) => entries.into_iter().map(|entry| (entry.name, convert(entry.node))).collect(),
        }
    }
    convert(super::toml::tree(toml).unwrap())
}

const EXAMPLE: &str = include_str!("../../docs/config.example.toml");

/// What a commented line of the example would say: `# wait = "60s"   # meaning`.
fn commented(line: &str) -> Option<(String, Value)> {
    let said = line.strip_prefix("# ").filter(|said| said.contains(" = "))?;
    let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || "-_".contains(c));
    let name = said.split(" = ").next().filter(|name| is_name(name))?;
    let value = json_of(said)[name].clone();
    Some((name.to_owned(), value))
}

/// The parts of the example that are about a provider, by its kind.
fn sections() -> Vec<(&'static str, &'static str)> {
    let providers = EXAMPLE.split("\n# Member mode").next().unwrap();
    let kind = |part: &'static str| {
        let told = part.lines().find_map(|line| line.trim_start_matches("# ").strip_prefix("kind = "));
        told.unwrap().trim_matches('"')
    };
    providers.split("[[providers]]").skip(1).map(|part| (kind(part), part)).collect()
}

#[cfg(all(feature = "consul", feature = "gossip", feature = "kubernetes", unix))]
#[test]
fn p1_1_the_schema_is_made_of_the_types_and_tables_that_read_the_file() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/config.schema.json");
    let made = schema();
    if std::env::var("SCHEMA").is_ok_and(|value| value == "write") {
        std::fs::write(path, serde_json::to_string_pretty(&made).unwrap() + "\n").unwrap();
    }
    let written: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(written == made, "docs/config.schema.json is another: SCHEMA=write writes it");
}

#[test]
fn p1_1_what_is_written_and_the_example_are_of_the_schema() {
    judge(&json!({})).unwrap();
    judge(&serde_json::to_value(ServiceConfig::default()).unwrap()).unwrap();
    judge(&json_of(EXAMPLE)).unwrap();
}

#[test]
fn p1_1_every_parameter_of_every_kind_is_of_the_schema_and_no_other_is() {
    let mut seen = 0;
    for (kind, table) in crate::providers::parameter_schemas() {
        let required: Vec<_> =
            table["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        let define = |name: &str, value: &str| {
            let given = required.iter().copied().chain([name]).map(|name| (name.to_owned(), json!("x")));
            let mut parameters: Map<_, _> = given.collect();
            parameters.insert(name.to_owned(), value.into());
            json!({"providers": [{"id": "a", "kind": kind, "parameters": parameters}]})
        };
        for (name, parameter) in table["properties"].as_object().unwrap() {
            let choice = parameter["enum"].get(0).and_then(Value::as_str);
            let value = parameter["default"].as_str().or(choice).unwrap_or(match parameter["pattern"].as_str() {
                Some(DURATION | "^([0-9]+(ms|s|m|h)|off)$") => "30s",
                _ => "x",
            });
            judge(&define(name, value)).unwrap_or_else(|reason| panic!("{kind} {name}: {reason}"));
            judge(&define(name, "")).expect_err("an empty value");
            seen += 1;
        }
        judge(&define("no-such-parameter", "x")).expect_err("an unknown parameter");
        if !required.is_empty() {
            judge(&json!({"providers": [{"id": "a", "kind": kind}]}))
                .expect_err("a required parameter that is missing");
        }
    }
    assert!(seen >= 3);
}

#[test]
fn p1_3_what_the_reader_refuses_the_schema_refuses() {
    let provider = |fields: Value| {
        let mut provider = json!({"id": "a", "kind": "in-memory"});
        provider.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        json!({"providers": [provider]})
    };
    judge(&provider(json!({"credential": {"token-file": "/x"}, "priority": 1000, "role": "fallback"}))).unwrap();
    judge(&provider(json!({"credential": "none"}))).unwrap();
    for wrong in [
        json!({"colaescing": "1s"}),
        json!({"coalescing": 1}),
        json!({"coalescing": "-1s"}),
        json!({"failover": {"standby": "warm"}}),
        json!({"failover": {"max_stale": "on"}}),
        json!({"failover": {"flap_damping": {"leave": 3}}}),
        json!({"member": {"id": "a", "address": "b"}}),
        json!({"member": {"id": "a", "address": "b", "port": 0}}),
        provider(json!({"token": "x"})),
        provider(json!({"credential": "x"})),
        provider(json!({"credential": {"token": "x"}})),
        provider(json!({"priority": 1001})),
        provider(json!({"id": "a b"})),
        provider(json!({"role": "standby"})),
        provider(json!({"endpoints": "x"})),
    ] {
        assert!(judge(&wrong).is_err(), "{wrong}");
        let read = ServiceConfig::from_json(&wrong.to_string());
        let applied = read.and_then(|config| ServiceBuilder::from_config(&config));
        assert!(applied.is_err(), "{wrong}");
    }
}

#[test]
fn p1_1_the_example_shows_every_setting_with_its_default() {
    let shown = json_of(EXAMPLE);
    let defaults = serde_json::to_value(ServiceConfig::default()).unwrap();
    for (name, default) in defaults.as_object().unwrap().iter().filter(|(name, _)| *name != "providers") {
        assert!(shown[name] != Value::Null, "{name} is not shown");
        let read = |value: &Value| ServiceConfig::from_json(&json!({name: value}).to_string()).unwrap();
        assert_eq!(read(&shown[name]), read(default), "{name}");
        // What is left out would have its default, too.
        if let Some(table) = default.as_object() {
            assert_eq!(shown[name].as_object().unwrap().len(), table.len(), "{name}");
        }
    }
    assert_eq!(shown["failover"]["flap_damping"].as_object().unwrap().len(), 3);
    // What has no default: with all fields.
    let schema = schema();
    for (name, table) in [("ProviderDescriptor", "providers"), ("MemberConfig", "member")] {
        for field in schema["$defs"][name]["properties"].as_object().unwrap().keys() {
            let told = |line: &str| {
                line.trim_start_matches("# ").starts_with(&format!("{field} = "))
                    || line.trim_start_matches("# ").starts_with(&format!("[{table}.{field}]"))
            };
            assert!(EXAMPLE.lines().any(told), "{table}.{field} is not shown");
        }
    }
    assert!(schema["properties"].as_object().unwrap().keys().all(|name| {
        EXAMPLE.lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{name} = ")))
            || shown.get(name).is_some()
    }));
}

#[test]
fn p1_1_the_example_shows_every_parameter_of_every_kind_with_its_default() {
    let sections = sections();
    for (kind, table) in crate::providers::parameter_schemas() {
        let Some((_, section)) = sections.iter().find(|(shown, _)| *shown == kind.as_str()) else {
            panic!("{kind} is not shown")
        };
        let active = json_of(&format!("[[providers]]{section}"));
        let active = active["providers"][0]["parameters"].as_object().cloned().unwrap_or_default();
        let shown: Map<_, _> = section.lines().filter_map(commented).chain(active).collect();
        let properties = table["properties"].as_object().unwrap();
        for (name, parameter) in properties {
            let value = shown.get(name).unwrap_or_else(|| panic!("{kind}: {name} is not shown"));
            assert!(parameter["default"].is_null() || parameter["default"] == *value, "{kind} {name} {value}");
            check(parameter, value, &Value::Null).unwrap_or_else(|reason| panic!("{kind} {name}: {reason}"));
        }
        let own = schema()["$defs"]["ProviderDescriptor"]["properties"].as_object().unwrap().clone();
        let unknown = shown.keys().find(|name| !properties.contains_key(*name) && !own.contains_key(*name));
        assert_eq!(unknown, None, "{kind}");
    }
}

#[test]
fn p1_1_links_of_the_documentation_are_plain_text_in_the_schema() {
    assert_eq!(without_links("See [`guard_share`](Self::guard_share).\nDefault."), "See `guard_share`. Default.");
    assert_eq!(without_links("as [`FlapDamping`] says\n\nmore"), "as `FlapDamping` says");
}
