//! A process that is killed while it saves leaves one of the two sets behind, whole. The processes and the kills are
//! real: this test binary runs itself again as the child that saves.
#![cfg(unix)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cluster_provisioning::{FileProviderStore, ProviderDescriptor, ProviderKind, ProviderStore, StoredSet};

const CHILD: &str = "STORE_KILL_CHILD";
const SEED: &str = "STORE_KILL_SEED";
const KILLS: usize = 120;
/// By when a child has to have saved something; far beyond what it needs.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sets of very different size, so that a mixture of both would show.
fn set(epoch: u64) -> StoredSet {
    let count = if epoch == 1 { 150 } else { 40 };
    let descriptor = |number: u64| {
        ProviderDescriptor::new(format!("provider-{number}"), ProviderKind::consul())
            .unwrap()
            .priority(epoch as i64)
            .parameter("service", "x".repeat(200))
    };
    StoredSet { epoch, descriptors: (0..count).map(descriptor).collect(), ..StoredSet::default() }
}

/// The child's part; as a test of its own it does nothing.
#[test]
fn child() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let mut store = FileProviderStore::open(PathBuf::from(path)).unwrap();
    let sets = [set(1), set(2)];
    for round in 0.. {
        store.save(&sets[round % 2]).unwrap();
        // One line per save, so that the parent kills by progress and not by time alone. Ends with the parent.
        if writeln!(std::io::stdout(), "saved").is_err() {
            return;
        }
    }
}

fn spawn(path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(CHILD, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Reads what the child says until it has saved that often, on a thread, so that a mute child does not hang the test.
fn await_saves(child: &mut Child, saves: u64) {
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for _ in stdout.lines().map_while(Result::ok).filter(|line| line.ends_with("saved")) {
            // Read on to the end also when nobody listens any more: a closed pipe would end the child.
            let _ = sender.send(());
        }
    });
    for _ in 0..saves {
        receiver.recv_timeout(PATIENCE).expect("the child saves");
    }
}

/// SplitMix64.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[test]
fn p1_5_p5_4_a_process_killed_while_saving_leaves_one_set_whole() {
    let fresh = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok()).unwrap_or(fresh);
    println!("{SEED}={seed}");
    let mut state = seed;

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("providers.jsonl");
    let (mut seen, mut interrupted) = ([0usize; 2], 0usize);
    for kill in 0..KILLS {
        let mut child = spawn(&path);
        await_saves(&mut child, 1 + random(&mut state) % 3);
        // Where within the next save the kill falls.
        let until = Instant::now() + Duration::from_micros(random(&mut state) % 3000);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "kill {kill}: the child ended by itself: {status}");

        interrupted += usize::from(leftovers(directory.path()) > 0);
        let mut store = FileProviderStore::open(&path).unwrap();
        assert_eq!(leftovers(directory.path()), 0, "kill {kill}: leftovers stay");
        let loaded = store.load().unwrap_or_else(|error| panic!("kill {kill}: {error}"));
        let which = [1, 2].into_iter().position(|epoch| loaded == set(epoch));
        seen[which.unwrap_or_else(|| panic!("kill {kill}: neither set: epoch {}", loaded.epoch))] += 1;
    }
    println!("{KILLS} kills: {seen:?} of each set, {interrupted} in the midst of a save");
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
    assert!(interrupted > 0, "no kill fell into a save: this test shows nothing");
}

fn leftovers(directory: &Path) -> usize {
    let names = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().ends_with(".tmp")).count()
}
