//! The rules that are pure functions as tables in JSON, `docs/conformance/gossip.json`, so that other languages can be held
//! to them. The tables are what this code does; `CONFORMANCE=write cargo test --lib conformance` writes them anew.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::accusers::Accusers;
use super::convergence::Confirmed;
use super::digest::{Digest, bucket};
use super::local_health::{LocalHealth, Sign};
use super::message::{LabelHash, MessageWriter};
use super::place::Place;
use super::probe::PingNumber;
use super::quarantine::{self, Refusal};
use super::record::{Life, Merged, Record, State};
use super::rulings::{Ruling, Sentence};
use super::settings::Settings;
use super::suspicion::{Bounds, Suspicion, expected};
use super::wire::Writer;
use super::wire::part::{Gone, Part, write_part};
use super::{isolation, loss, rumours};
use crate::clock::Timestamp;
use crate::topology::{ClusterNode, NodeId};

fn now() -> Timestamp {
    Timestamp::from_millis(1_000_000)
}

fn id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn accusers(names: &[&str]) -> Accusers {
    names.iter().map(|name| id(name)).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn record(incarnation: u64, version: u64, address: &str, state: State) -> Record {
    let node =
        ClusterNode::builder("n1", address, 7000).incarnation(incarnation).kinds(["a", "b"]).metadata("zone", "z1");
    Record::new(Arc::new(node.build().unwrap()), version, state, 1).unwrap().reached_at(7946)
}

fn shown(record: &Record) -> Value {
    let names = |accusers: &Accusers| accusers.iter().map(|id| id.to_string()).collect::<Vec<_>>();
    let state = match record.state() {
        State::Up => json!({ "state": "up" }),
        State::Suspect(accusers) => json!({ "state": "suspect", "accusers": names(accusers) }),
        State::Dead { accusers, quarantined_until } => json!({
            "state": "dead", "accusers": names(accusers),
            "quarantine_left_ms": quarantined_until.since(now()).as_millis() as u64
        }),
        State::Left => json!({ "state": "left" }),
    };
    let mut shown = json!({
        "incarnation": record.node().incarnation(), "version": record.version(), "address": record.node().address(),
    });
    shown.as_object_mut().unwrap().extend(state.as_object().unwrap().clone());
    shown
}

/// Records of one node, from the least that counts to the greatest.
fn records() -> Vec<Record> {
    let suspect = |names: &[&str]| State::Suspect(accusers(names));
    let dead = |names: &[&str], left| State::Dead {
        accusers: accusers(names),
        quarantined_until: now() + Duration::from_secs(left),
    };
    vec![
        record(1, 0, "10.0.0.1", State::Up),
        record(1, 0, "10.0.0.2", State::Up),
        record(1, 0, "10.0.0.1", suspect(&["n2"])),
        record(1, 0, "10.0.0.1", suspect(&["n3", "n4"])),
        record(1, 0, "10.0.0.1", dead(&["n2"], 10)),
        record(1, 0, "10.0.0.1", dead(&["n3"], 7)),
        record(1, 0, "10.0.0.1", State::Left),
        record(1, 1, "10.0.0.1", State::Up),
        record(2, 0, "10.0.0.1", State::Up),
        record(2, 0, "10.0.0.1", suspect(&["n2", "n3", "n4", "n5"])),
        record(2, 0, "10.0.0.1", suspect(&["n1", "n6"])),
    ]
}

fn merges() -> Value {
    let all = records();
    let pairs = all.iter().flat_map(|a| all.iter().map(move |b| (a, b)));
    let rows = pairs.map(|(held, heard)| {
        let mut merged = held.clone();
        let what = match merged.merge(heard) {
            Merged::Nothing => "nothing",
            Merged::Added => "added",
            Merged::Replaced => "replaced",
        };
        json!({ "held": shown(held), "heard": shown(heard), "merged": shown(&merged), "what": what })
    });
    rows.collect()
}

fn suspicions() -> Value {
    let bounds = Bounds { shortest: Duration::from_secs(4), longest: Duration::from_secs(24) };
    let rows = [1usize, 2, 3, 4, 5, 100].into_iter().flat_map(|members| {
        (1..=4usize).map(move |count| {
            let names: Vec<String> = (0..count).map(|n| format!("n{n}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let suspicion = Suspicion::new(accusers(&names), expected(members), bounds, now());
            json!({ "members": members, "accusers": count, "timeout_ms": suspicion.ends_at().since(now()).as_millis() as u64 })
        })
    });
    json!({ "shortest_ms": 4000, "longest_ms": 24000, "rows": rows.collect::<Vec<_>>() })
}

fn bounds() -> Value {
    let lan = Settings::lan("conformance");
    let rows = [1usize, 2, 10, 50, 100, 1000, 10_000].into_iter().flat_map(|members| {
        let lan = &lan;
        [0.0, 0.1, 0.25, 0.5, 1.0].into_iter().map(move |lost| {
            let Bounds { shortest, longest } = lan.bounds(members, lost);
            json!({ "members": members, "lost": lost, "shortest_ms": shortest.as_millis() as u64,
                "longest_ms": longest.as_millis() as u64 })
        })
    });
    rows.collect()
}

fn quarantines() -> Value {
    let first = Settings::lan("conformance").quarantine;
    let rows = (0..=8u8)
        .map(|strikes| json!({ "strikes": strikes, "ms": quarantine::lasting(strikes, first).as_millis() as u64 }));
    let lived = [None, Some(0), Some(599), Some(600)].into_iter().flat_map(|lived: Option<u64>| {
        [0u8, 3, 255].into_iter().map(move |before| {
            let after = quarantine::strikes(before, lived.map(Duration::from_secs));
            json!({ "strikes_before": before, "lived_since_return_s": lived, "strikes_after": after })
        })
    });
    json!({ "lasting": rows.collect::<Vec<_>>(), "strikes": lived.collect::<Vec<_>>() })
}

fn rulings() -> Value {
    let until = Some(now() + Duration::from_secs(5));
    let all = [
        ("pin", Ruling::told(0, id("n1"), Sentence::KeptOut { until: None })),
        ("pin for 5 s", Ruling::told(0, id("n1"), Sentence::KeptOut { until })),
        ("lift", Ruling::told(0, id("n1"), Sentence::LetIn { incarnation: 3, version: 1 })),
        ("pin", Ruling::told(0, id("n2"), Sentence::KeptOut { until: None })),
        ("lift", Ruling::told(1, id("n1"), Sentence::LetIn { incarnation: 3, version: 1 })),
    ];
    let shown = |(what, ruling): &(&str, Ruling)| json!({ "counter": ruling.counter(), "writer": ruling.writer().as_str(), "what": what });
    let pairs = all.iter().flat_map(|held| all.iter().map(move |heard| (held, heard)));
    pairs
        .map(|(held, heard)| {
            let mut merged = held.1.clone();
            json!({ "held": shown(held), "heard": shown(heard), "replaced": merged.merge(&heard.1) })
        })
        .collect()
}

fn digests() -> Value {
    let of = |record: &Record| {
        let mut digest = Digest::default();
        digest.replace(None, Some(record));
        format!("{:016x}", digest.all())
    };
    let rows = records().into_iter().map(|record| json!({ "record": shown(&record), "digest": of(&record) }));
    let buckets =
        ["a", "n1", "n0000001", "host.example"].map(|name| json!({ "id": name, "bucket": bucket(&id(name)) }));
    json!({ "records": rows.collect::<Vec<_>>(), "buckets": buckets })
}

fn local_health() -> Value {
    let mut health = LocalHealth::default();
    let signs = [
        ("answered", Sign::Answered),
        ("relay-silent", Sign::RelaySilent),
        ("refuted", Sign::Refuted),
        ("stood-still", Sign::StoodStill),
        ("answered", Sign::Answered),
    ];
    let rows = signs.map(|(name, sign)| {
        health.note(sign);
        json!({ "sign": name, "score": health.score(), "a_second_takes_ms": health.scale(Duration::from_secs(1)).as_millis() as u64 })
    });
    json!(rows)
}

fn parts() -> Vec<(&'static str, Part)> {
    let number = PingNumber(5);
    let life = || Life { id: id("n1"), incarnation: 300 };
    let place = || Place::new("h", 258);
    let [up, _, suspect, _, dead, _, left, ..] = &records()[..] else { unreachable!("there are more") };
    let gone = vec![Gone { id: id("n1"), is_dead: true }];
    let kept = Ruling::told(4, id("n1"), Sentence::KeptOut { until: Some(now() + Duration::from_secs(7)) });
    vec![
        ("ping", Part::Ping { number, subject: life(), digest: 2 }),
        (
            "acknowledgement",
            Part::Acknowledgement { number, life: life(), digest: 2, hash: 3, confirmed: Confirmed::All },
        ),
        (
            "ping request",
            Part::PingRequest { number, subject: life(), place: place(), time_left: Duration::from_millis(500) },
        ),
        ("nack", Part::Nack(number)),
        ("record, up", Part::Record(up.clone())),
        ("record, suspect", Part::Record(suspect.clone())),
        ("record, dead", Part::Record(dead.clone())),
        ("record, left", Part::Record(left.clone())),
        ("refusal", Part::Refused(Refusal::Quarantined { accusers: accusers(&["n2"]), left: Duration::from_secs(7) })),
        (
            "ruling, lift",
            Part::Ruling {
                id: id("x"),
                ruling: Ruling::told(4, id("n1"), Sentence::LetIn { incarnation: 300, version: 2 }),
            },
        ),
        ("ruling, pin", Part::Ruling { id: id("x"), ruling: kept }),
        ("join", Part::Join { label: "prod".into() }),
        ("welcome", Part::Welcome { incarnation: 300, version: 2 }),
        ("elsewhere", Part::Elsewhere(vec![place()])),
        ("noted", Part::Noted),
        ("differing", Part::Differing(vec![0, 255])),
        ("observe", Part::Observe { hash: 3 }),
        ("observed", Part::Observed { hash: 3, is_whole: false, gone }),
    ]
}

fn wire() -> Value {
    let of = |part: &Part| {
        let mut writer = Writer::default();
        write_part(&mut writer, part, None, now());
        hex(&writer.into_bytes())
    };
    let rows = parts().into_iter().map(|(name, part)| json!({ "part": name, "bytes": of(&part) }));
    let mut message = MessageWriter::new(LabelHash::of("prod"), &Life { id: id("n1"), incarnation: 300 });
    message.part(&Part::Nack(PingNumber(5)), now());
    json!({ "parts": rows.collect::<Vec<_>>(), "message of label prod with a nack": hex(&message.into_bytes()) })
}

fn tables() -> Value {
    let mut measured = loss::Loss::default();
    (0..40).for_each(|n| measured.note(n % 4 != 0));
    let limits = isolation::Limits { begins: Duration::from_millis(2500), longest: Some(Duration::from_secs(60)) };
    let mut isolated = isolation::Isolation::new(limits, now());
    let isolation = [(2usize, 2500u64), (3, 2499), (3, 2500), (3, 62_499), (3, 62_500)].map(|(members, millis)| {
        let contact = isolated.advance(members, now() + Duration::from_millis(millis));
        let what = contact.map(|contact| match contact {
            isolation::Contact::Heard => "heard",
            isolation::Contact::Isolated(_) => "isolated",
            isolation::Contact::GivenUp(_) => "given-up",
        });
        json!({ "members": members, "silent_for_ms": millis, "becomes": what })
    });
    let times = [0usize, 1, 9, 10, 99, 100, 999, 1000, 10_000]
        .map(|members| json!({ "members": members, "times": rumours::times(members) }));
    json!({
        "merge": merges(),
        "suspicion": suspicions(),
        "suspicion_bounds_lan": bounds(),
        "quarantine": quarantines(),
        "rulings": rulings(),
        "digest": digests(),
        "local_health": local_health(),
        "loss_of_40_probes_each_fourth_lost": measured.share(),
        "isolation_lan": isolation,
        "rumour_is_told": times,
        "wire": wire(),
    })
}

#[test]
fn m1_4_m2_3_m3_1_the_tables_for_other_languages_are_what_this_code_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/conformance/gossip.json");
    let text = format!("{:#}\n", tables());
    if std::env::var("CONFORMANCE").is_ok_and(|what| what == "write") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let known = std::fs::read_to_string(&path).unwrap();
    assert!(known == text, "the tables differ: CONFORMANCE=write cargo test --lib conformance");
}
