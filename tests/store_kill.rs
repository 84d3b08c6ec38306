//! A process that is killed while it saves leaves one of the two sets behind, whole. The processes and the kills are
//! real: this test binary runs itself again as the child that saves.
#![cfg(unix)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use cluster_provisioning::{FileProviderStore, ProviderDescriptor, ProviderKind, ProviderStore, StoredSet};

const CHILD: &str = "STORE_KILL_CHILD";
const SEED: &str = "STORE_KILL_SEED";
/// So many kills within a save are wanted, and so many are tried at most.
const WITHIN_A_SAVE: usize = 40;
const KILLS: usize = 400;
/// By when a child has to have saved something; far beyond what it needs.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the child tells before and after a save.
const BEGIN: &str = "save begins";
const END: &str = "saved";

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
        // The parent kills by what it is told, and learns from the last line what the kill has hit. Ends with the parent.
        if writeln!(std::io::stdout(), "{BEGIN}").is_err() {
            return;
        }
        store.save(&sets[round % 2]).unwrap();
        if writeln!(std::io::stdout(), "{END}").is_err() {
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

/// Reads what the child says, with the time, on a thread, so that a mute child does not hang the test. Ends with it.
fn listen(child: &mut Child) -> Receiver<(String, Instant)> {
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            // The first line begins with what the test harness says.
            for told in [BEGIN, END].into_iter().filter(|told| line.ends_with(told)) {
                _ = sender.send((told.to_owned(), Instant::now()));
            }
        }
    });
    receiver
}

/// Waits until the child says so; when it did.
fn await_line(said: &Receiver<(String, Instant)>, wanted: &str) -> Instant {
    loop {
        let (line, at) = said.recv_timeout(PATIENCE).expect("the child saves");
        if line == wanted {
            return at;
        }
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
    let (mut seen, mut kills, mut within, mut left_behind) = ([0usize; 2], 0, 0usize, 0usize);
    while kills < KILLS && (within < WITHIN_A_SAVE || left_behind == 0 || seen.contains(&0)) {
        kills += 1;
        let mut child = spawn(&path);
        let said = listen(&mut child);
        let mut lasts = Duration::ZERO;
        for _ in 0..=random(&mut state) % 2 {
            let begun = await_line(&said, BEGIN);
            lasts = await_line(&said, END) - begun;
        }
        // Anywhere within the next save, as far as it lasts as long as the one before.
        let begun = await_line(&said, BEGIN);
        let until = begun + lasts.mul_f64((random(&mut state) % 1000) as f64 / 1000.0);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "kill {kills}: the child ended by itself: {status}");
        // All that the child has said until it was killed; the listener ends with it.
        let last = said.iter().last().map_or(BEGIN.to_owned(), |(line, _)| line);
        within += usize::from(last == BEGIN);

        left_behind += usize::from(leftovers(directory.path()) > 0);
        let mut store = FileProviderStore::open(&path).unwrap();
        assert_eq!(leftovers(directory.path()), 0, "kill {kills}: leftovers stay");
        let loaded = store.load().unwrap_or_else(|error| panic!("kill {kills}: {error}"));
        let which = [1, 2].into_iter().position(|epoch| loaded == set(epoch));
        seen[which.unwrap_or_else(|| panic!("kill {kills}: neither set: epoch {}", loaded.epoch))] += 1;
    }
    println!(
        "{kills} kills: {seen:?} of each set, {within} within a save, {left_behind} between its first byte and its last"
    );
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
    assert!(within >= WITHIN_A_SAVE, "{within} kills fell into a save: too few to show anything");
    assert!(left_behind > 0, "no kill fell between the first byte of a file and its rename");
}

fn leftovers(directory: &Path) -> usize {
    let names = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().ends_with(".tmp")).count()
}
