//! The durable set of provider definitions.
//!
//! A [`ProviderStore`] keeps one [`StoredSet`], whole: after any failure or power cut it holds the set before or the set
//! after, never a mixture. What the set means, who may change it and what happens at a start is the registry's to decide;
//! a definition is not validated here. [`FileProviderStore`] keeps the set in a file: this file decides how it is
//! replaced, locked and cleaned up after, [`format`](mod@format) what its bytes are, and [`disk`] carries out each step.

mod disk;
mod format;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use disk::{Disk, Found, SystemDisk, is_temporary};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::error::{ErrorCode, ProvisioningError};
use crate::id::ProviderId;
use crate::provider::ProviderDescriptor;
use crate::text::line::log_line;

/// The most definitions that a set may hold: each enabled one costs a thread and a connection.
pub const MAX_PROVIDERS: usize = 256;

const OPENING: &str = "opening the provider store";
const LOADING: &str = "loading the provider store";
const SAVING: &str = "saving the provider store";

/// What a store keeps: the definitions in the order of their registration, and the epoch of the start that wrote them.
/// Serialises, for a store of the host's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct StoredSet {
    /// The epoch of the start that saved this set; 0 if none ever did.
    pub epoch: u64,
    /// The definitions, in the order of their registration. Ids are unique. At most [`MAX_PROVIDERS`].
    pub descriptors: Vec<ProviderDescriptor>,
    /// The names of those that were given when the store was seeded, and whose backends had not answered by the time of
    /// the save: they are not accepted yet, and a later start asks them again. At most [`MAX_PROVIDERS`].
    pub pending: Vec<ProviderId>,
}

impl StoredSet {
    /// These definitions, saved by the start of that epoch; none pending.
    pub fn new(epoch: u64, descriptors: Vec<ProviderDescriptor>) -> Self {
        Self { epoch, descriptors, pending: Vec::new() }
    }
}

/// Keeps the set of provider definitions durably. [`FileProviderStore`] is one; a host may bring another.
pub trait ProviderStore: Send {
    /// The set as it was last saved; the empty set with epoch 0 if none ever was. Changes nothing.
    ///
    /// # Errors
    /// A code of the store category, if the set cannot be read or cannot be trusted. It is left as it is.
    fn load(&mut self) -> Result<StoredSet, ProvisioningError>;

    /// Replaces the set as a whole. When this returns `Ok` the new set survives a crash.
    ///
    /// # Errors
    /// A code of the store category. A later [`load`](Self::load) then finds either set, but whole.
    fn save(&mut self, set: &StoredSet) -> Result<(), ProvisioningError>;
}

/// Keeps the set in a JSON Lines file: a header with format, version, epoch, count and checksum, then one definition
/// per line. Definitions hold no secrets, so neither does the file.
///
/// - **Replaced whole.** A save writes a temporary file `.NAME.XXXXXX.tmp` (mode 0600) in the same directory, syncs it,
///   renames it over the old one and syncs the directory. What a killed process left of such files is removed at the
///   next [`open`](Self::open). Systems other than Unix have no directory sync and no file mode.
/// - **Held by one.** While the store is open the file `NAME.lock` beside it is locked, against other processes and
///   against a second store in the same one. The lock goes with the process, however it ends; its file stays. Where it
///   cannot be made beside a file that exists (a full or read-only disk), the file is read without it, and nothing is
///   saved before it is held. A file with several hard links is refused, since each name would have a lock of its own.
/// - **Nobody else's is overwritten.** A save looks whether the file still holds what was loaded or saved last, and leaves
///   one that was replaced meanwhile as it is. One that was moved away is written anew.
/// - **Never repaired.** A file that is damaged, foreign or newer stops the start and stays byte for byte as it is.
///   A missing file is the empty set; an empty file is a damaged one.
/// - **Symbolic links are followed once**, at `open`: the file that the path leads to then is the one that is locked and
///   replaced, and the link stays. A link that leads nowhere is an error.
pub struct FileProviderStore {
    place: Place<SystemDisk>,
    /// Locked as long as it is open; `None` where that could not be done yet.
    lock: Option<Lock>,
}

impl FileProviderStore {
    /// Opens the store at that path, which need not exist; its directory must. Nothing is read from the file yet.
    ///
    /// # Errors
    /// [`ErrorCode::StoreLocked`] if another process, or another store in this one, holds it.
    /// [`ErrorCode::StoreIo`] if the directory is missing, the path is no regular file or one of several hard links, or
    /// there is no file and the lock cannot be made.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ProvisioningError> {
        let given = path.as_ref();
        let (directory, name) = resolve(given)?;
        let place = Place { path: directory.join(&name), directory, seen: None, disk: SystemDisk };
        let exists = place.require_regular(OPENING)?;
        require_one_name(&place.path)?;
        let lock = match Lock::take(&place.path, OPENING) {
            Ok(lock) => Some(lock),
            // A set that is whole can be read; the save, which comes next, says what is wrong.
            Err(error) if exists && error.code() == ErrorCode::StoreIo => None,
            Err(error) => return Err(error),
        };
        if lock.is_some() {
            remove_leftovers(&place.directory, &name);
        }
        Ok(Self { place, lock })
    }

    /// The file, as an absolute path without symbolic links.
    pub fn path(&self) -> &Path {
        &self.place.path
    }
}

impl fmt::Debug for FileProviderStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileProviderStore").field("path", &self.place.path).finish_non_exhaustive()
    }
}

impl ProviderStore for FileProviderStore {
    fn load(&mut self) -> Result<StoredSet, ProvisioningError> {
        self.place.load()
    }

    /// # Errors
    /// [`ErrorCode::InvalidConfig`] or [`ErrorCode::DuplicateName`] if the set could not be loaded again;
    /// [`ErrorCode::StoreReplaced`] if the file is not the one that was loaded or saved last; [`ErrorCode::StoreLocked`] if
    /// the lock could not be had before, and another service has it now;
    /// [`ErrorCode::StoreIo`] if it cannot be written. Only if syncing the directory fails is the new set in place
    /// nevertheless, though it may not survive a power cut.
    fn save(&mut self, set: &StoredSet) -> Result<(), ProvisioningError> {
        if self.lock.is_none() {
            self.lock = Some(Lock::take(&self.place.path, SAVING)?);
        }
        self.place.save(set)
    }
}

/// What may be at the place without anybody else having put it there, each by the hash of its bytes; `None`: no file.
struct Seen {
    /// What was there when it was looked at last.
    found: Option<u128>,
    /// What a save that failed may have left there.
    tried: Option<u128>,
}

/// Where the set is kept.
struct Place<D> {
    path: PathBuf,
    directory: PathBuf,
    /// `None` as long as nothing was loaded or saved.
    seen: Option<Seen>,
    disk: D,
}

impl<D: Disk> Place<D> {
    fn load(&mut self) -> Result<StoredSet, ProvisioningError> {
        let Some(bytes) = self.read(LOADING)? else {
            self.seen = Some(Seen { found: None, tried: None });
            return Ok(StoredSet::default());
        };
        let set = format::decode(&bytes).map_err(|refusal| {
            let place = match refusal.line {
                Some(line) => format!("{}, line {line}", self.path.display()),
                None => self.path.display().to_string(),
            };
            ProvisioningError::new(refusal.code, LOADING, format!("{place}: {}", refusal.reason))
        })?;
        self.seen = Some(Seen { found: Some(xxh3_128(&bytes)), tried: None });
        Ok(set)
    }

    /// The file's bytes, if there is one.
    fn read(&self, doing: &'static str) -> Result<Option<Vec<u8>>, ProvisioningError> {
        if !self.require_regular(doing)? {
            return Ok(None);
        }
        // One byte more than allowed tells a file at the limit from one beyond it.
        let cap = format::MAX_BYTES as u64 + 1;
        self.disk.read(&self.path, cap).map(Some).map_err(|error| io_error(doing, &self.path, &error))
    }

    fn save(&mut self, set: &StoredSet) -> Result<(), ProvisioningError> {
        let bytes = format::encode(set)?;
        let found = self.require_ours()?;
        let tried = Some(xxh3_128(&bytes));
        self.seen = Some(Seen { found, tried });
        self.replace(&bytes).map_err(|error| io_error(SAVING, &self.path, &error))?;
        self.seen = Some(Seen { found: tried, tried: None });
        Ok(())
    }

    /// What is there to be replaced: nothing that anybody else has put there since it was looked at last. A directory in
    /// the file's place is reported as such rather than as what rename makes of it.
    fn require_ours(&self) -> Result<Option<u128>, ProvisioningError> {
        let found = self.read(SAVING)?.map(|bytes| xxh3_128(&bytes));
        match &self.seen {
            Some(seen) if found.is_some() && found != seen.found && found != seen.tried => {
                let detail = format!("{}: it is not the file that was loaded or saved last", self.path.display());
                Err(ProvisioningError::new(ErrorCode::StoreReplaced, SAVING, detail))
            }
            _ => Ok(found),
        }
    }

    /// The bytes last before they take the old ones' place, and the place is theirs for good before this returns.
    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        let name = self.path.file_name().unwrap_or_default();
        let temporary = self.disk.write_temporary(&self.directory, name, bytes)?;
        self.disk.sync_file(&temporary)?;
        self.disk.rename(temporary, &self.path)?;
        self.disk.sync_directory(&self.directory)
    }

    /// Whether the file exists. Anything but a regular file is refused: reading a pipe, say, would block.
    fn require_regular(&self, doing: &'static str) -> Result<bool, ProvisioningError> {
        let what = match self.disk.look(&self.path).map_err(|error| io_error(doing, &self.path, &error))? {
            Found::File => return Ok(true),
            Found::Nothing => return Ok(false),
            Found::Directory => "it is a directory",
            Found::Other => "it is not a regular file",
        };
        Err(ProvisioningError::new(ErrorCode::StoreIo, doing, format!("{}: {what}", self.path.display())))
    }
}

/// The directory, without symbolic links, and the name of the file that `given` leads to.
fn resolve(given: &Path) -> Result<(PathBuf, OsString), ProvisioningError> {
    let refuse =
        |reason: String| ProvisioningError::new(ErrorCode::StoreIo, OPENING, format!("{}: {reason}", given.display()));
    let leads_to = match fs::symlink_metadata(given) {
        Ok(metadata) if metadata.file_type().is_symlink() => fs::canonicalize(given)
            .map_err(|error| refuse(format!("it is a symbolic link that cannot be followed: {error}")))?,
        _ => given.to_path_buf(),
    };
    let name = leads_to.file_name().ok_or_else(|| refuse("it names no file".to_owned()))?;
    let directory = match leads_to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let directory =
        fs::canonicalize(directory).map_err(|error| refuse(format!("its directory cannot be used: {error}")))?;
    Ok((directory, name.to_os_string()))
}

/// A file with several names has a lock beside each, and a save would part them.
#[cfg(unix)]
fn require_one_name(path: &Path) -> Result<(), ProvisioningError> {
    let names = fs::metadata(path).map_or(1, |metadata| std::os::unix::fs::MetadataExt::nlink(&metadata));
    if names <= 1 {
        return Ok(());
    }
    let detail = format!("{}: it has {names} names (hard links), and only one of them would be locked", path.display());
    let error = ProvisioningError::new(ErrorCode::StoreIo, OPENING, detail);
    Err(error.with_advice("remove the other links, or make them symbolic ones or copies"))
}

#[cfg(not(unix))]
fn require_one_name(_: &Path) -> Result<(), ProvisioningError> {
    Ok(())
}

/// The locks that this process holds: the system does not tell who holds one.
static HELD: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A lock file that is locked.
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    /// Locks the file beside that one.
    fn take(beside: &Path, doing: &'static str) -> Result<Self, ProvisioningError> {
        let mut name = beside.as_os_str().to_os_string();
        name.push(".lock");
        let path = PathBuf::from(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        // One that is there can be locked on a read-only disk, too.
        let file = options.open(&path).or_else(|error| File::open(&path).map_err(|_| error));
        let file = file.map_err(|error| io_error(doing, &path, &error))?;
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        match file.try_lock() {
            Ok(()) => {
                held.push(path.clone());
                Ok(Self { path, _file: file })
            }
            Err(TryLockError::WouldBlock) => Err(locked(&path, held.contains(&path), doing)),
            Err(TryLockError::Error(error)) => Err(io_error(doing, &path, &error)),
        }
    }
}

impl Drop for Lock {
    /// Before the file is closed: whoever finds it unlocked does not find it here.
    fn drop(&mut self) {
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = held.iter().position(|path| *path == self.path) {
            held.swap_remove(at);
        }
    }
}

fn locked(path: &Path, by_us: bool, doing: &'static str) -> ProvisioningError {
    let (by, advice) = match by_us {
        true => (
            "this process: a service or store that it has opened before",
            "drop the former one first, or give each its own path",
        ),
        false => ("another process", "stop the other process, or give each its own path"),
    };
    let detail = format!("{} is locked by {by}", path.display());
    ProvisioningError::new(ErrorCode::StoreLocked, doing, detail).with_advice(advice)
}

/// Removes the temporary files of processes that were killed while saving. Called under the lock, so that none of them
/// is in use. One that cannot be removed does no harm and does not stop the start.
fn remove_leftovers(directory: &Path, name: &OsStr) {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => return log_line!(Warn, "cannot look for leftovers in {}: {error}", directory.display()),
    };
    for entry in entries.flatten() {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_file && is_temporary(&entry.file_name(), name) {
            match fs::remove_file(entry.path()) {
                Ok(()) => log_line!(Info, "removed {}, left by an interrupted save", entry.path().display()),
                Err(error) => log_line!(Warn, "cannot remove {}: {error}", entry.path().display()),
            }
        }
    }
}

fn io_error(doing: &'static str, path: &Path, error: &io::Error) -> ProvisioningError {
    ProvisioningError::new(ErrorCode::StoreIo, doing, format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod power_cuts;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ProviderKind;
    use tempfile::TempDir;

    fn set(epoch: u64, ids: &[&str]) -> StoredSet {
        let descriptor = |id: &&str| {
            ProviderDescriptor::new(id, ProviderKind::consul()).unwrap().priority(7).endpoint("http://127.0.0.1:8500")
        };
        StoredSet { epoch, descriptors: ids.iter().map(descriptor).collect(), ..StoredSet::default() }
    }

    fn names(directory: &TempDir) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn p1_5_what_was_saved_is_loaded_by_the_next_process() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("providers.jsonl");
        let mut store = FileProviderStore::open(&path).unwrap();
        assert_eq!(store.load().unwrap(), StoredSet::default());
        for saved in [set(1, &["a", "b"]), set(2, &["b"]), set(3, &[])] {
            store.save(&saved).unwrap();
            assert_eq!(store.load().unwrap(), saved);
        }
        store.save(&set(4, &["b", "a"])).unwrap();
        drop(store);
        assert_eq!(FileProviderStore::open(&path).unwrap().load().unwrap(), set(4, &["b", "a"]));
        assert_eq!(names(&directory), ["providers.jsonl", "providers.jsonl.lock"]);
    }

    #[cfg(unix)]
    #[test]
    fn p1_5_the_file_is_readable_by_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("providers.jsonl");
        let mut store = FileProviderStore::open(&path).unwrap();
        store.save(&set(1, &["a"])).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        store.save(&set(2, &["a"])).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn p1_5_a_file_that_cannot_be_trusted_is_refused_by_name_and_left_as_it_is() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("providers.jsonl");
        let cases: [(&[u8], ErrorCode, &str); 4] = [
            (b"", ErrorCode::StoreCorrupt, "empty"),
            (b"{\"format\":\"cluster-provisioning/pro", ErrorCode::StoreCorrupt, "line 1"),
            (b"[package]\nname = \"x\"\n", ErrorCode::StoreForeign, "line 1"),
            (
                b"{\"format\":\"cluster-provisioning/providers\",\"version\":2,\"new\":[]}\n",
                ErrorCode::StoreVersion,
                "version 2",
            ),
        ];
        for (content, code, reason) in cases {
            fs::write(&path, content).unwrap();
            let error = FileProviderStore::open(&path).unwrap().load().unwrap_err();
            assert_eq!(error.code(), code, "{error}");
            assert!(error.to_string().contains("providers.jsonl") && error.to_string().contains(reason), "{error}");
            assert_eq!(fs::read(&path).unwrap(), content);
        }
    }

    #[test]
    fn p1_5_a_file_beyond_the_size_limit_is_refused_without_reading_it_all() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("providers.jsonl");
        let mut store = FileProviderStore::open(&path).unwrap();
        store.save(&set(1, &["a"])).unwrap();
        // Sparse: a terabyte that could not be read into memory.
        OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
        let error = store.load().unwrap_err();
        assert_eq!(error.code(), ErrorCode::StoreCorrupt, "{error}");
        assert!(error.detail().contains("larger than"), "{error}");
    }

    #[test]
    fn p1_5_a_directory_in_the_files_place_is_an_error() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("providers.jsonl");
        let mut store = FileProviderStore::open(&path).unwrap();
        fs::create_dir(&path).unwrap();
        for error in [
            store.load().unwrap_err(),
            store.save(&set(1, &["a"])).unwrap_err(),
            FileProviderStore::open(&path).unwrap_err(),
            FileProviderStore::open(directory.path().join("missing/providers.jsonl")).unwrap_err(),
            FileProviderStore::open("/").unwrap_err(),
        ] {
            assert_eq!(error.code(), ErrorCode::StoreIo, "{error}");
        }
        assert!(store.load().unwrap_err().detail().contains("directory"));
        assert!(path.is_dir());
    }

    #[test]
    fn p5_4_a_failed_save_leaves_the_old_set_and_no_leftovers() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("providers.jsonl");
        let mut store = FileProviderStore::open(&path).unwrap();
        store.save(&set(1, &["a"])).unwrap();
        assert_eq!(store.save(&set(2, &["b", "c", "b"])).unwrap_err().code(), ErrorCode::DuplicateName);
        let many: Vec<_> = (0..=MAX_PROVIDERS).map(|n| n.to_string()).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert_eq!(store.save(&set(2, &many)).unwrap_err().code(), ErrorCode::InvalidConfig);
        assert_eq!(store.load().unwrap(), set(1, &["a"]));

        let moved = directory.path().join("moved");
        fs::create_dir(&moved).unwrap();
        store.place.directory = directory.path().join("gone");
        assert_eq!(store.save(&set(2, &["b"])).unwrap_err().code(), ErrorCode::StoreIo);
        store.place.directory = moved.clone();
        store.place.path = moved.join("providers.jsonl");
        fs::create_dir(&store.place.path).unwrap();
        assert_eq!(store.save(&set(2, &["b"])).unwrap_err().code(), ErrorCode::StoreIo);
        assert_eq!(fs::read_dir(&moved).unwrap().count(), 1);
        store.place.path = path;
        assert_eq!(store.load().unwrap(), set(1, &["a"]));
    }

    #[test]
    fn p1_5_a_second_store_on_the_same_file_is_locked_out_until_the_first_is_gone() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("providers.jsonl");
        let first = FileProviderStore::open(&path).unwrap();
        let error = FileProviderStore::open(&path).unwrap_err();
        assert_eq!(error.code(), ErrorCode::StoreLocked);
        assert!(error.detail().contains("locked by this process") && error.advice().contains("drop"), "{error}");
        drop(first);
        let lock = File::open(directory.path().join("providers.jsonl.lock")).unwrap();
        lock.try_lock().unwrap();
        let error = FileProviderStore::open(&path).unwrap_err();
        assert!(error.detail().ends_with("locked by another process"), "{error}");
        drop(lock);
        FileProviderStore::open(&path).unwrap();
    }

    #[test]
    fn p1_5_a_file_that_was_replaced_meanwhile_is_not_overwritten() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("providers.jsonl");
        let theirs = format::encode(&set(9, &["theirs"])).unwrap();
        let mut store = FileProviderStore::open(&path).unwrap();
        for load_first in [true, false] {
            fs::remove_file(&path).ok();
            if load_first {
                store.load().unwrap();
            } else {
                store.save(&set(1, &["a"])).unwrap();
            }
            for _ in 0..2 {
                fs::write(&path, &theirs).unwrap();
                let error = store.save(&set(2, &["a", "b"])).unwrap_err();
                assert_eq!(error.code(), ErrorCode::StoreReplaced, "{error}");
                assert!(error.to_string().contains("restart the service to use that file, or move it away"), "{error}");
                assert_eq!(fs::read(&path).unwrap(), theirs, "it has not been touched");
            }
        }
        // Moved away, as advised; or loaded, as at a start.
        fs::rename(&path, directory.path().join("theirs")).unwrap();
        store.save(&set(2, &["a"])).unwrap();
        fs::write(&path, &theirs).unwrap();
        assert_eq!(store.load().unwrap(), set(9, &["theirs"]));
        store.save(&set(10, &["theirs"])).unwrap();
        // The same bytes in another file are nobody's change.
        let copy = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, copy).unwrap();
        store.save(&set(11, &[])).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn p1_5_a_file_with_several_hard_links_is_refused_until_it_has_one() {
        let directory = TempDir::new().unwrap();
        let [path, link] = ["providers.jsonl", "link.jsonl"].map(|name| directory.path().join(name));
        FileProviderStore::open(&path).unwrap().save(&set(1, &["a"])).unwrap();
        fs::hard_link(&path, &link).unwrap();
        for name in [&path, &link] {
            let error = FileProviderStore::open(name).unwrap_err();
            assert_eq!(error.code(), ErrorCode::StoreIo);
            assert!(error.to_string().contains("2 names (hard links)") && error.advice().contains("links"), "{error}");
        }
        fs::remove_file(&link).unwrap();
        FileProviderStore::open(&path).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn p1_5_p5_5_where_the_lock_cannot_be_made_a_set_is_read_and_nothing_is_saved_before_it_is_held() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("providers.jsonl");
        FileProviderStore::open(&path).unwrap().save(&set(1, &["a"])).unwrap();
        fs::remove_file(directory.path().join("providers.jsonl.lock")).unwrap();
        // What may be opened where the link leads to can be locked, and nothing may be as long as there is no folder.
        let nowhere = directory.path().join("missing/lock");
        for name in ["providers.jsonl.lock", "other.jsonl.lock"] {
            std::os::unix::fs::symlink(&nowhere, directory.path().join(name)).unwrap();
        }
        let other = FileProviderStore::open(directory.path().join("other.jsonl")).unwrap_err();
        assert_eq!(other.code(), ErrorCode::StoreIo, "there is nothing that could be read");
        let mut store = FileProviderStore::open(&path).unwrap();
        assert_eq!(store.load().unwrap(), set(1, &["a"]));
        let error = store.save(&set(2, &["b"])).unwrap_err();
        assert_eq!(error.code(), ErrorCode::StoreIo, "{error}");
        assert_eq!(store.load().unwrap(), set(1, &["a"]));
        fs::create_dir(directory.path().join("missing")).unwrap();
        store.save(&set(2, &["b"])).unwrap();
        assert_eq!(FileProviderStore::open(&path).unwrap_err().code(), ErrorCode::StoreLocked);
        assert_eq!(store.load().unwrap(), set(2, &["b"]));
    }

    #[cfg(unix)]
    #[test]
    fn p1_5_a_symbolic_link_leads_to_the_one_file_and_stays() {
        let directory = TempDir::new().unwrap();
        let other = TempDir::new().unwrap();
        let real = other.path().join("real.jsonl");
        let link = directory.path().join("providers.jsonl");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let dangling = FileProviderStore::open(&link).unwrap_err();
        assert_eq!(dangling.code(), ErrorCode::StoreIo);

        FileProviderStore::open(&real).unwrap().save(&set(1, &["a"])).unwrap();
        let mut store = FileProviderStore::open(&link).unwrap();
        assert_eq!(FileProviderStore::open(&real).unwrap_err().code(), ErrorCode::StoreLocked);
        store.save(&set(2, &["b"])).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        drop(store);
        assert_eq!(FileProviderStore::open(&real).unwrap().load().unwrap(), set(2, &["b"]));
        assert_eq!(names(&directory), ["providers.jsonl"]);
    }

    #[test]
    fn p1_5_opening_removes_our_own_leftovers_and_nothing_else() {
        let directory = TempDir::new().unwrap();
        let keep = [
            ".providers.jsonl.Ab12z.tmp",
            ".providers.jsonl.Ab12-9.tmp",
            ".providers.jsonl.Ab12z9.bak",
            ".other.jsonl.Ab12z9.tmp",
            "providers.jsonl.Ab12z9.tmp",
        ];
        for name in keep.iter().chain(&[".providers.jsonl.Ab12z9.tmp"]) {
            fs::write(directory.path().join(name), "x").unwrap();
        }
        fs::create_dir(directory.path().join(".providers.jsonl.Dir123.tmp")).unwrap();
        let _store = FileProviderStore::open(directory.path().join("providers.jsonl")).unwrap();
        let mut expected: Vec<_> = keep.iter().map(|name| (*name).to_owned()).collect();
        expected.extend([".providers.jsonl.Dir123.tmp".to_owned(), "providers.jsonl.lock".to_owned()]);
        expected.sort();
        assert_eq!(names(&directory), expected);
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
        #[test]
        fn p1_5_a_damaged_file_is_never_touched(
            cut in proptest::prelude::any::<proptest::sample::Index>(),
            position in proptest::prelude::any::<proptest::sample::Index>(),
            value: u8,
        ) {
            let saved = set(5, &["a", "b"]);
            let whole = format::encode(&saved).unwrap();
            let mut altered = whole.clone();
            altered[position.index(whole.len())] = value;
            let directory = TempDir::new().unwrap();
            let path = directory.path().join("providers.jsonl");
            for bytes in [&whole[..cut.index(whole.len())], &altered] {
                fs::write(&path, bytes).unwrap();
                if let Ok(loaded) = FileProviderStore::open(&path).unwrap().load() {
                    assert_eq!(loaded, saved);
                }
                assert_eq!(fs::read(&path).unwrap(), bytes);
            }
        }
    }
}
