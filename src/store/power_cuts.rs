//! The order in which the store asks the disk, and what it is worth: a disk that forgets what was not synced, and fails
//! wherever it can.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::rc::Rc;

use super::disk::{Disk, Found};
use super::{Place, StoredSet, format};
use crate::error::ErrorCode;
use crate::id::ProviderKind;
use crate::provider::ProviderDescriptor;

const CALLS_OF_A_SAVE: [&str; 6] = ["look", "read", "write temporary", "sync file", "rename", "sync directory"];

/// Where there is no file yet, none is read.
fn calls_of_a_save(old: u64) -> Vec<&'static str> {
    CALLS_OF_A_SAVE.into_iter().filter(|call| old > 0 || *call != "read").collect()
}

/// What the disk holds of one file. Until it is synced, a power cut may leave nothing or half of it.
struct Content {
    bytes: Vec<u8>,
    synced: bool,
}

#[derive(Default)]
struct State {
    files: Vec<Content>,
    /// Which file is at the path, to whoever looks.
    at_path: Option<usize>,
    /// Which one is there after a power cut, for certain if none was renamed since the directory was synced.
    at_path_for_good: Option<usize>,
    /// The files that were renamed to the path since then, in order.
    renamed: Vec<usize>,
    temporaries: usize,
    calls: Vec<&'static str>,
    /// The calls that fail, by their numbers.
    failing: std::ops::Range<usize>,
}

#[derive(Clone, Default)]
struct ForgetfulDisk(Rc<RefCell<State>>);

struct Temporary {
    file: usize,
    disk: ForgetfulDisk,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        self.disk.0.borrow_mut().temporaries -= 1;
    }
}

impl ForgetfulDisk {
    fn call(&self, name: &'static str) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        let number = state.calls.len();
        state.calls.push(name);
        if state.failing.contains(&number) { Err(io::Error::other(format!("{name} failed"))) } else { Ok(()) }
    }

    /// From here on these calls fail, counted from the next.
    fn fail(&self, calls: std::ops::Range<usize>) {
        let mut state = self.0.borrow_mut();
        state.calls.clear();
        state.failing = calls;
    }

    fn calls(&self) -> Vec<&'static str> {
        self.0.borrow().calls.clone()
    }

    /// Everything that may be at the path after a power cut at this moment.
    fn after_power_cut(&self) -> Vec<Option<Vec<u8>>> {
        let state = self.0.borrow();
        let candidates = std::iter::once(state.at_path_for_good).chain(state.renamed.iter().copied().map(Some));
        let contents = candidates.flat_map(|file| match file.map(|file| &state.files[file]) {
            None => vec![None],
            Some(Content { bytes, synced: true }) => vec![Some(bytes.clone())],
            Some(Content { bytes, .. }) => [0, bytes.len() / 2, bytes.len()].map(|n| Some(bytes[..n].to_vec())).into(),
        });
        contents.collect()
    }

    /// The sets that may be found after a power cut, by their epochs, without repetition. Each has to be whole.
    fn epochs_after_power_cut(&self) -> Vec<u64> {
        let load = |bytes: Option<Vec<u8>>| match bytes {
            None => StoredSet::default(),
            Some(bytes) => format::decode(&bytes).expect("a set, whole"),
        };
        let sets = self.after_power_cut().into_iter().map(load).inspect(|found| assert_eq!(*found, set(found.epoch)));
        let mut epochs: Vec<_> = sets.map(|set| set.epoch).collect();
        epochs.dedup();
        epochs
    }
}

impl Disk for ForgetfulDisk {
    type Temporary = Temporary;

    fn look(&self, _: &Path) -> io::Result<Found> {
        self.call("look")?;
        Ok(if self.0.borrow().at_path.is_some() { Found::File } else { Found::Nothing })
    }

    fn read(&self, _: &Path, at_most: u64) -> io::Result<Vec<u8>> {
        self.call("read")?;
        let state = self.0.borrow();
        let file = state.at_path.ok_or(io::ErrorKind::NotFound)?;
        Ok(state.files[file].bytes.iter().copied().take(at_most as usize).collect())
    }

    fn write_temporary(&self, _: &Path, _: &OsStr, bytes: &[u8]) -> io::Result<Temporary> {
        self.call("write temporary")?;
        let mut state = self.0.borrow_mut();
        state.files.push(Content { bytes: bytes.to_vec(), synced: false });
        state.temporaries += 1;
        Ok(Temporary { file: state.files.len() - 1, disk: self.clone() })
    }

    fn sync_file(&self, temporary: &Temporary) -> io::Result<()> {
        self.call("sync file")?;
        self.0.borrow_mut().files[temporary.file].synced = true;
        Ok(())
    }

    fn rename(&self, temporary: Temporary, _: &Path) -> io::Result<()> {
        self.call("rename")?;
        let mut state = self.0.borrow_mut();
        state.at_path = Some(temporary.file);
        state.renamed.push(temporary.file);
        drop(state);
        Ok(())
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        self.call("sync directory")?;
        let mut state = self.0.borrow_mut();
        state.at_path_for_good = state.at_path;
        state.renamed.clear();
        Ok(())
    }
}

/// Set 0 is the one of a store that never saved any.
fn set(epoch: u64) -> StoredSet {
    let descriptor =
        |number| ProviderDescriptor::new(format!("{epoch}-{number}"), ProviderKind::consul()).unwrap().priority(7);
    StoredSet { epoch, descriptors: (0..epoch).map(descriptor).collect(), ..StoredSet::default() }
}

fn place() -> Place<ForgetfulDisk> {
    let disk = ForgetfulDisk::default();
    Place { path: "/store/providers.jsonl".into(), directory: "/store".into(), seen: None, disk }
}

#[test]
fn p1_5_a_save_syncs_the_file_before_it_takes_its_place_and_the_directory_after() {
    let mut place = place();
    for old in [0, 1] {
        place.disk.fail(0..0);
        place.save(&set(old + 1)).unwrap();
        assert_eq!(place.disk.calls(), calls_of_a_save(old));
        assert_eq!(place.disk.epochs_after_power_cut(), [old + 1], "what is saved stays");
    }
}

#[test]
fn p1_5_p5_4_a_power_cut_anywhere_in_a_save_leaves_the_old_set_or_the_new_one_whole() {
    for old in [0, 1] {
        let calls = calls_of_a_save(old);
        for cut in 0..=calls.len() {
            let mut place = place();
            if old > 0 {
                place.save(&set(old)).unwrap();
            }
            place.disk.fail(cut..usize::MAX);
            let saved = place.save(&set(2));
            let expected: &[u64] = match calls.get(cut) {
                None => &[2],
                Some(&"sync directory") => &[old, 2],
                Some(_) => &[old],
            };
            assert_eq!(place.disk.epochs_after_power_cut(), expected, "cut at call {cut} over set {old}");
            assert_eq!(saved.is_ok(), cut == calls.len(), "cut at call {cut}");
        }
    }
}

#[test]
fn p1_5_p5_5_each_step_of_a_save_that_fails_is_told_by_its_code_and_loses_nothing() {
    for (failing, call) in CALLS_OF_A_SAVE.iter().enumerate() {
        let mut place = place();
        place.save(&set(1)).unwrap();
        place.disk.fail(failing..failing + 1);
        let error = place.save(&set(2)).unwrap_err();
        assert_eq!(error.code(), ErrorCode::StoreIo, "{error}");
        assert!(error.detail().contains(&format!("/store/providers.jsonl: {call} failed")), "{error}");
        assert_eq!(place.disk.0.borrow().temporaries, 0, "{call}: no temporary file is left");
        // In place, though it may not last.
        let in_force = if *call == "sync directory" { 2 } else { 1 };
        place.disk.fail(0..0);
        assert_eq!(place.load().unwrap(), set(in_force), "{call}");
        // The next save may meet with a power cut, too.
        for cut in 0..=CALLS_OF_A_SAVE.len() {
            place.disk.fail(cut..usize::MAX);
            _ = place.save(&set(3));
            place.disk.epochs_after_power_cut();
        }
        assert_eq!(place.disk.epochs_after_power_cut(), [3], "{call}");
    }
}

#[test]
fn p1_5_p5_5_a_set_that_cannot_be_read_is_an_error_and_not_the_empty_set() {
    let mut place = place();
    place.save(&set(1)).unwrap();
    for failing in 0..2 {
        place.disk.fail(failing..failing + 1);
        assert_eq!(place.load().unwrap_err().code(), ErrorCode::StoreIo);
    }
    assert_eq!(place.load().unwrap(), set(1));
}
