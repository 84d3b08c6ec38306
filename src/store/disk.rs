//! What the store asks of a disk, call by call, and the disk that answers.
//!
//! In which order it is asked, and what that order is worth in a power cut, is the store's to decide and to prove; here is
//! only what each call does. Also what a temporary file is called, so that one left behind is known again.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use tempfile::NamedTempFile;

/// What is at a path, symbolic links followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    File,
    Directory,
    /// A pipe, say: reading it would block.
    Other,
}

/// A disk. Nothing but the two syncs makes anything last over a power cut.
pub(super) trait Disk {
    /// A file that is removed when it is let go of, unless it was renamed.
    type Temporary;

    fn look(&self, path: &Path) -> io::Result<Found>;

    /// The file's first bytes, so many at most.
    fn read(&self, path: &Path, at_most: u64) -> io::Result<Vec<u8>>;

    /// A new file beside the one of that name, which only its owner may read.
    fn write_temporary(&self, directory: &Path, name: &OsStr, bytes: &[u8]) -> io::Result<Self::Temporary>;

    /// Makes the file's bytes last.
    fn sync_file(&self, temporary: &Self::Temporary) -> io::Result<()>;

    /// Puts the file in the place of whatever file is at that path.
    fn rename(&self, temporary: Self::Temporary, to: &Path) -> io::Result<()>;

    /// Makes the renames in that directory last.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
}

/// The disk of the machine.
#[derive(Debug)]
pub(super) struct SystemDisk;

impl Disk for SystemDisk {
    type Temporary = NamedTempFile;

    fn look(&self, path: &Path) -> io::Result<Found> {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => Ok(Found::File),
            Ok(metadata) if metadata.is_dir() => Ok(Found::Directory),
            Ok(_) => Ok(Found::Other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
            Err(error) => Err(error),
        }
    }

    fn read(&self, path: &Path, at_most: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(at_most).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn write_temporary(&self, directory: &Path, name: &OsStr, bytes: &[u8]) -> io::Result<NamedTempFile> {
        let mut temporary =
            tempfile::Builder::new().prefix(&prefix(name)).suffix(SUFFIX).rand_bytes(RANDOM).tempfile_in(directory)?;
        temporary.write_all(bytes)?;
        Ok(temporary)
    }

    fn sync_file(&self, temporary: &NamedTempFile) -> io::Result<()> {
        temporary.as_file().sync_all()
    }

    fn rename(&self, temporary: NamedTempFile, to: &Path) -> io::Result<()> {
        temporary.persist(to).map(drop).map_err(|error| error.error)
    }

    #[cfg(unix)]
    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }

    #[cfg(not(unix))]
    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

const SUFFIX: &str = ".tmp";
/// How many random letters and digits stand between prefix and suffix.
const RANDOM: usize = 6;

fn prefix(name: &OsStr) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(".");
    prefix
}

/// Whether that is what a temporary file beside the one of that name is called.
pub(super) fn is_temporary(candidate: &OsStr, name: &OsStr) -> bool {
    candidate
        .as_encoded_bytes()
        .strip_prefix(prefix(name).as_encoded_bytes())
        .and_then(|rest| rest.strip_suffix(SUFFIX.as_bytes()))
        .is_some_and(|random| random.len() == RANDOM && random.iter().all(u8::is_ascii_alphanumeric))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn p1_5_a_temporary_file_has_the_name_that_it_is_known_by() {
        let directory = TempDir::new().unwrap();
        let name = OsStr::new("providers.jsonl");
        let file = SystemDisk.write_temporary(directory.path(), name, b"x").unwrap();
        assert!(is_temporary(file.path().file_name().unwrap(), name));
    }

    #[test]
    fn p1_5_a_temporary_file_that_is_let_go_of_is_removed_and_a_renamed_one_is_not() {
        let directory = TempDir::new().unwrap();
        let (name, to) = (OsStr::new("providers.jsonl"), directory.path().join("providers.jsonl"));
        drop(SystemDisk.write_temporary(directory.path(), name, b"old").unwrap());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        for content in [b"old", b"new"] {
            let file = SystemDisk.write_temporary(directory.path(), name, content).unwrap();
            SystemDisk.rename(file, &to).unwrap();
            assert_eq!(SystemDisk.read(&to, 100).unwrap(), content);
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    /// What cannot be synced says so when it is asked to.
    #[cfg(target_os = "linux")]
    #[test]
    fn p1_5_the_system_is_asked_to_sync_files_and_directories() {
        let directory = TempDir::new().unwrap();
        let unused = tempfile::TempPath::try_from_path(directory.path().join("unused")).unwrap();
        let null = NamedTempFile::from_parts(File::open("/dev/null").unwrap(), unused);
        assert_eq!(SystemDisk.sync_file(&null).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(SystemDisk.sync_directory(Path::new("/proc")).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        SystemDisk.sync_directory(directory.path()).unwrap();
    }
}
