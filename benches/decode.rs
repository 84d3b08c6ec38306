//! What decoding a Consul agent's answer costs: by how much more than reading and hashing its bytes, and how much memory
//! beside the set that it makes.
//!
//! The bytes are those that an agent in dev mode sends, indented, about 3 kB for each instance. They come from memory, in
//! pieces of the buffer's size; floors are measured over the same bytes, in turn.

mod support;

use std::io::Read;
use std::time::Duration;

use cluster_provisioning::Members;
use cluster_provisioning::testkit::ConsulDecoder;
use serde::de::IgnoredAny;
use support::answer::answer;
use support::counting::Counting;
use support::{Samples, Table, Target, time};
use xxhash_rust::xxh3::xxh3_128;

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

/// The decoder's buffer for entries of ordinary size.
const BUFFER: usize = 32 * 1024;

fn main() {
    // A size alone: `cargo bench --bench decode -- 10000`.
    let only: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let wanted = |size: usize| only.is_empty() || only.contains(&size);
    for (size, rounds) in [(1_000, 101), (10_000, 21), (100_000, 5)] {
        if wanted(size) {
            speed(size, rounds);
        }
    }
    if wanted(34_000) {
        memory(34_000);
    }
}

fn decode(decoder: &mut ConsulDecoder, body: &[u8]) -> (Duration, Members) {
    let (took, (members, skipped)) = time(|| decoder.decode(body).expect("a good answer"));
    assert_eq!(skipped, 0);
    (took, members)
}

/// Reads the bytes into a buffer and hashes them there.
fn read_and_hash(mut body: &[u8]) -> u128 {
    let mut buffer = vec![0; BUFFER];
    let mut sum = 0;
    loop {
        match body.read(&mut buffer) {
            Ok(count) if count > 0 => sum ^= xxh3_128(&buffer[..count]),
            _ => return sum,
        }
    }
}

fn speed(size: usize, rounds: usize) {
    let body = answer(size, 0, 1);
    let changed = [answer(size, 1, 2), answer(size, 1, 3)];
    let others = [answer(size, size, 2), answer(size, size, 3)];
    // One entry beyond the limit: its bytes are looked at only to find its end.
    let huge = [&b"[{\"x\": "[..], &body, b"}]"].concat();
    let none = Samples::default;
    let (mut floor, mut json, mut scan) = (none(), none(), none());
    let (mut first, mut same, mut one, mut all) = (none(), none(), none(), none());
    let mut warm = ConsulDecoder::new("orders");
    let expected = decode(&mut warm, &body).1;
    for round in 0..rounds {
        floor.push(time(|| std::hint::black_box(read_and_hash(&body))).0);
        json.push(time(|| serde_json::from_slice::<IgnoredAny>(&body).expect("JSON")).0);
        scan.push(time(|| ConsulDecoder::new("orders").decode(&huge[..]).expect("a list")).0);
        let (took, members) = decode(&mut ConsulDecoder::new("orders"), &body);
        assert_eq!(members, expected);
        first.push(took);
        same.push(decode(&mut warm, &body).0);
        one.push(decode(&mut warm, &changed[round % 2]).0);
        decode(&mut warm, &others[round % 2]);
        all.push(decode(&mut warm, &others[(round + 1) % 2]).0);
        decode(&mut warm, &body);
    }
    let megabytes = body.len() as f64 / 1e6;
    let mut table = Table::new(&format!("{size} entries, {megabytes:.1} MB"), "decode, p50", "read, hash");
    table.pairs("unchanged", &same, &floor, Target::Times(1.5));
    table.pairs("one changed", &one, &floor, Target::None);
    table.pairs("all changed", &all, &floor, Target::None);
    table.pairs("the first answer", &first, &floor, Target::None);
    table.pairs("finding where entries end, alone", &scan, &floor, Target::None);
    table.pairs("serde_json over the same, building nothing", &json, &floor, Target::None);
    let rate = |samples: &Samples| format!("{:.2}", megabytes / 1e3 / samples.median().as_secs_f64());
    table.note(&format!(
        "GB/s: unchanged {}, one changed {}, first {}, finding ends {}, serde_json {}, floor {}",
        rate(&same),
        rate(&one),
        rate(&first),
        rate(&scan),
        rate(&json),
        rate(&floor)
    ));
}

fn memory(size: usize) {
    let body = answer(size, 0, 1);
    let (one, all) = (answer(size, 1, 2), answer(size, size, 2));
    let mut table = Table::of_limits(&format!("Memory while {:.0} MB are decoded", body.len() as f64 / 1e6));
    let start = ALLOCATOR.bytes();
    let members = decode(&mut ConsulDecoder::new("orders"), &body).1;
    let held = (ALLOCATOR.bytes() - start) as f64;
    drop(members);
    table.limit("the set that it makes", held / 1e6, "MB", None);

    let mut decoder = ConsulDecoder::new("orders");
    let mut peak = |what: &str, body: &[u8], limit: Option<f64>| {
        let before = ALLOCATOR.bytes();
        ALLOCATOR.forget_peak();
        let members = decode(&mut decoder, body).1;
        let most = (ALLOCATOR.peak() - before) as f64;
        table.limit(what, (most - BUFFER as f64) / held, "x set", limit);
        members
    };
    let before = ALLOCATOR.bytes();
    let first = peak("the first answer: most at once, less the buffer", &body, Some(2.0));
    let kept = (ALLOCATOR.bytes() - before) as f64 / held;
    let same = peak("the same again, beside what it left", &body, Some(2.0));
    assert_eq!(first, same);
    let changed = peak("one entry changed, beside that", &one, Some(2.0));
    drop((first, same, changed));
    drop(peak("all of them changed, beside that", &all, Some(2.0)));
    table.limit("kept between answers, the set included", kept, "x set", None);
}
