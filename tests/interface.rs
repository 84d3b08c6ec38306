//! The public interface stands in `docs/interface.txt`, so that a change of it shows in review: every item with its
//! fields, variants, methods and traits, from what rustdoc says of the crate. Run as `.ci/run` does, since rustdoc's JSON
//! is not stable:
//!
//! ```sh
//! RUSTC_BOOTSTRAP=1 cargo rustdoc --all-features --target-dir target/docsrs -- -Z unstable-options --output-format json
//! cargo test --test interface -- --ignored                      # compares
//! INTERFACE=write cargo test --test interface -- --ignored      # writes it anew
//! ```

use std::collections::BTreeSet;

use serde_json::Value;

const SAID: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/docsrs/doc/cluster_provisioning.json");
const WRITTEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/interface.txt");

#[test]
#[ignore = "needs rustdoc's JSON: see the file's beginning"]
fn the_public_interface_is_the_one_that_is_written_down() {
    let said = std::fs::read_to_string(SAID).expect("rustdoc's JSON");
    let crate_ = Crate(serde_json::from_str(&said).expect("JSON"));
    let mut lines = BTreeSet::new();
    crate_.module("", &crate_.0["root"], &mut lines);
    let text: String = lines.into_iter().map(|line| line + "\n").collect();
    if std::env::var("INTERFACE").as_deref() == Ok("write") {
        std::fs::write(WRITTEN, &text).expect("a file that can be written");
    }
    let written = std::fs::read_to_string(WRITTEN).expect("docs/interface.txt");
    let (now, then): (BTreeSet<_>, BTreeSet<_>) = (text.lines().collect(), written.lines().collect());
    let (new, gone): (Vec<_>, Vec<_>) = (now.difference(&then).collect(), then.difference(&now).collect());
    assert!(new.is_empty() && gone.is_empty(), "new: {new:#?}\ngone: {gone:#?}\nIf it is meant: INTERFACE=write");
}

struct Crate(Value);

impl Crate {
    fn item(&self, id: &Value) -> Option<&Value> {
        self.0["index"].get(id.to_string())
    }

    fn module(&self, path: &str, id: &Value, lines: &mut BTreeSet<String>) {
        let Some(module) = self.item(id) else { return };
        for id in array(&module["inner"]["module"]["items"]) {
            let Some(item) = self.item(id) else { continue };
            let reexport = &item["inner"]["use"];
            match reexport["name"].as_str() {
                Some(name) => self.named(&format!("{path}{name}"), &reexport["id"], lines),
                None => self.named(&format!("{path}{}", text(&item["name"])), id, lines),
            }
        }
    }

    fn named(&self, path: &str, id: &Value, lines: &mut BTreeSet<String>) {
        let Some(item) = self.item(id) else { return };
        let Some((kind, inner)) = item["inner"].as_object().and_then(|inner| inner.iter().next()) else { return };
        match kind.as_str() {
            "module" => return self.module(&format!("{path}::"), id, lines),
            "function" => _ = lines.insert(format!("{path}{}", signature(inner))),
            "constant" => _ = lines.insert(format!("{path}: {}", ty(&inner["type"]))),
            "type_alias" => _ = lines.insert(format!("{path} = {}", ty(&inner["type"]))),
            _ => {
                let marker = if has_attribute(item, "non_exhaustive") { " (may grow)" } else { "" };
                lines.insert(format!(
                    "{path}: {kind}{}{}{marker}",
                    generics(&inner["generics"]),
                    bounds(&inner["bounds"])
                ));
            }
        }
        self.fields(path, inner, lines);
        for id in array(&inner["variants"]) {
            let Some(variant) = self.item(id) else { continue };
            let path = format!("{path}::{}", text(&variant["name"]));
            lines.insert(path.clone());
            self.fields(&path, &variant["inner"]["variant"], lines);
        }
        // What a trait asks for or gives.
        for id in array(&inner["items"]) {
            self.member(path, id, lines);
        }
        let mut traits = BTreeSet::new();
        for id in array(&inner["impls"]) {
            let Some(item) = self.item(id) else { continue };
            let block = &item["inner"]["impl"];
            let made = block["is_synthetic"] == Value::Bool(true) || !block["blanket_impl"].is_null();
            match block["trait"]["path"].as_str() {
                _ if made => {}
                Some(name) if name.ends_with("StructuralPartialEq") => {}
                Some(_) => _ = traits.insert(ty_path(&block["trait"])),
                None => array(&block["items"]).iter().for_each(|id| self.member(path, id, lines)),
            }
        }
        if !traits.is_empty() {
            lines.insert(format!("{path}: impl {}", traits.into_iter().collect::<Vec<_>>().join(", ")));
        }
    }

    /// The public fields of a struct or variant; without names their numbers.
    fn fields(&self, path: &str, inner: &Value, lines: &mut BTreeSet<String>) {
        let kind = &inner["kind"];
        let named = [&kind["plain"]["fields"], &kind["struct"]["fields"], &kind["tuple"]];
        for id in named.into_iter().flat_map(array) {
            let Some(field) = self.item(id) else { continue };
            lines.insert(format!("{path}.{}: {}", text(&field["name"]), ty(&field["inner"]["struct_field"])));
        }
    }

    /// A method, constant or type of a type or trait.
    fn member(&self, path: &str, id: &Value, lines: &mut BTreeSet<String>) {
        let Some(item) = self.item(id) else { return };
        let (name, inner) = (text(&item["name"]), &item["inner"]);
        if inner["function"].is_object() {
            lines.insert(format!("{path}::{name}{}", signature(&inner["function"])));
        } else if inner["assoc_const"].is_object() {
            lines.insert(format!("{path}::{name}: {}", ty(&inner["assoc_const"]["type"])));
        } else {
            lines.insert(format!("{path}::{name}"));
        }
    }
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("_")
}

fn has_attribute(item: &Value, name: &str) -> bool {
    item["attrs"].to_string().contains(name)
}

fn joined(values: &[Value], between: &str, show: impl Fn(&Value) -> String) -> String {
    values.iter().map(show).collect::<Vec<_>>().join(between)
}

fn signature(function: &Value) -> String {
    let shown = |input: &Value| match (text(&input[0]), ty(&input[1])) {
        ("self", own) => own.replace("Self", "self"),
        (name, other) => format!("{name}: {other}"),
    };
    let sig = &function["sig"];
    let output = if sig["output"].is_null() { String::new() } else { format!(" -> {}", ty(&sig["output"])) };
    let qualifier = if function["header"]["is_const"] == Value::Bool(true) { " const" } else { "" };
    format!("{}({}){output}{qualifier}", generics(&function["generics"]), joined(array(&sig["inputs"]), ", ", shown))
}

/// The generic parameters that somebody wrote, with their bounds.
fn generics(generics: &Value) -> String {
    let written = |param: &&Value| param["kind"]["type"]["is_synthetic"] != Value::Bool(true);
    let params = array(&generics["params"]).iter().filter(written);
    let params: Vec<_> =
        params.map(|param| format!("{}{}", text(&param["name"]), bounds(&param["kind"]["type"]["bounds"]))).collect();
    if params.is_empty() { String::new() } else { format!("<{}>", params.join(", ")) }
}

fn bounds(bounds: &Value) -> String {
    let shown = joined(array(bounds), " + ", bound);
    if shown.is_empty() { shown } else { format!(": {shown}") }
}

fn bound(bound: &Value) -> String {
    if bound["trait_bound"].is_object() {
        let maybe = if text(&bound["trait_bound"]["modifier"]) == "maybe" { "?" } else { "" };
        format!("{maybe}{}", ty_path(&bound["trait_bound"]["trait"]))
    } else {
        bound["outlives"].as_str().unwrap_or("use<..>").to_owned()
    }
}

fn ty_path(path: &Value) -> String {
    let name = text(&path["path"]).rsplit("::").next().unwrap_or_default();
    let args = &path["args"];
    let shown = |arg: &Value| match (&arg["type"], &arg["lifetime"]) {
        (_, Value::String(lifetime)) => lifetime.clone(),
        (inner, _) => ty(inner),
    };
    let constraint = |constraint: &Value| {
        let (name, binding) = (text(&constraint["name"]), &constraint["binding"]);
        let exact = &binding["equality"]["type"];
        if exact.is_null() {
            format!("{name}{}", bounds(&binding["constraint"]))
        } else {
            format!("{name} = {}", ty(exact))
        }
    };
    let angle = &args["angle_bracketed"];
    let mut all: Vec<_> = array(&angle["args"]).iter().map(shown).collect();
    all.extend(array(&angle["constraints"]).iter().map(constraint));
    if args["parenthesized"].is_object() {
        let output = &args["parenthesized"]["output"];
        let output = if output.is_null() { String::new() } else { format!(" -> {}", ty(output)) };
        return format!("{name}({}){output}", joined(array(&args["parenthesized"]["inputs"]), ", ", ty));
    }
    if all.is_empty() { name.to_owned() } else { format!("{name}<{}>", all.join(", ")) }
}

fn ty(value: &Value) -> String {
    let Some((kind, inner)) = value.as_object().and_then(|value| value.iter().next()) else { return "_".to_owned() };
    match kind.as_str() {
        "resolved_path" => ty_path(inner),
        "primitive" | "generic" => text(inner).to_owned(),
        "borrowed_ref" => {
            let lifetime = inner["lifetime"].as_str().map(|name| format!("{name} ")).unwrap_or_default();
            let mutable = if inner["is_mutable"] == Value::Bool(true) { "mut " } else { "" };
            format!("&{lifetime}{mutable}{}", ty(&inner["type"]))
        }
        "tuple" => format!("({})", joined(array(inner), ", ", ty)),
        "slice" => format!("[{}]", ty(inner)),
        "array" => format!("[{}; {}]", ty(&inner["type"]), text(&inner["len"])),
        "impl_trait" => format!("impl {}", joined(array(inner), " + ", bound)),
        "dyn_trait" => format!("dyn {}", joined(array(&inner["traits"]), " + ", |one| ty_path(&one["trait"]))),
        "qualified_path" => format!("{}::{}", ty(&inner["self_type"]), text(&inner["name"])),
        "function_pointer" => format!("fn{}", signature(inner)),
        other => other.to_owned(),
    }
}
