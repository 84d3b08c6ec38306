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

use disk::{Disk, Found, SystemDisk, is_temporary};

use serde::{Deserialize, Serialize};

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
///   against a second store in the same one. The lock goes with the process, however it ends; its file stays.
/// - **Never repaired.** A file that is damaged, foreign or newer stops the start and stays byte for byte as it is.
///   A missing file is the empty set; an empty file is a damaged one.
/// - **Symbolic links are followed once**, at `open`: the file that the path leads to then is the one that is locked and
///   replaced, and the link stays. A link that leads nowhere is an error.
pub struct FileProviderStore {
    place: Place<SystemDisk>,
    /// Locked as long as it is open.
    _lock: File,
}

impl FileProviderStore {
    /// Opens the store at that path, which need not exist; its directory must. Nothing is read from the file yet.
    ///
    /// # Errors
    /// [`ErrorCode::StoreLocked`] if another process, or another store in this one, holds it.
    /// [`ErrorCode::StoreIo`] if the directory is missing, the path is no regular file, or the lock cannot be had.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ProvisioningError> {
        let given = path.as_ref();
        let (directory, name) = resolve(given)?;
        let place = Place { path: directory.join(&name), directory, disk: SystemDisk };
        place.require_regular(OPENING)?;
        let lock = lock(&place.path)?;
        remove_leftovers(&place.directory, &name);
        Ok(Self { place, _lock: lock })
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
    /// [`ErrorCode::StoreIo`] if it cannot be written. Only if syncing the directory fails is the new set in place
    /// nevertheless, though it may not survive a power cut.
    fn save(&mut self, set: &StoredSet) -> Result<(), ProvisioningError> {
        self.place.save(set)
    }
}

/// Where the set is kept.
struct Place<D> {
    path: PathBuf,
    directory: PathBuf,
    disk: D,
}

impl<D: Disk> Place<D> {
    fn load(&self) -> Result<StoredSet, ProvisioningError> {
        if !self.require_regular(LOADING)? {
            return Ok(StoredSet::default());
        }
        // One byte more than allowed tells a file at the limit from one beyond it.
        let cap = format::MAX_BYTES as u64 + 1;
        let bytes = self.disk.read(&self.path, cap).map_err(|error| io_error(LOADING, &self.path, &error))?;
        format::decode(&bytes).map_err(|refusal| {
            let place = match refusal.line {
                Some(line) => format!("{}, line {line}", self.path.display()),
                None => self.path.display().to_string(),
            };
            ProvisioningError::new(refusal.code, LOADING, format!("{place}: {}", refusal.reason))
        })
    }

    fn save(&self, set: &StoredSet) -> Result<(), ProvisioningError> {
        let bytes = format::encode(set)?;
        // A directory in the file's place is reported as such rather than as what rename makes of it.
        self.require_regular(SAVING)?;
        self.replace(&bytes).map_err(|error| io_error(SAVING, &self.path, &error))
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

fn lock(path: &Path) -> Result<File, ProvisioningError> {
    let mut name = path.as_os_str().to_os_string();
    name.push(".lock");
    let path = PathBuf::from(name);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(&path).map_err(|error| io_error(OPENING, &path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let reason = format!("{} is locked", path.display());
            Err(ProvisioningError::new(ErrorCode::StoreLocked, OPENING, reason))
        }
        Err(TryLockError::Error(error)) => Err(io_error(OPENING, &path, &error)),
    }
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
        assert_eq!(FileProviderStore::open(&path).unwrap_err().code(), ErrorCode::StoreLocked);
        drop(first);
        FileProviderStore::open(&path).unwrap();
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
