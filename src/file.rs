//! Small files that hold credentials, certificates or settings: read whole, up to a limit, and only if they are regular files;
//! and whether one has changed.

use std::fs::File;
use std::io::Read;
use std::path::Path;
#[cfg(feature = "_http")]
use std::path::PathBuf;
#[cfg(feature = "_http")]
use std::time::SystemTime;

use zeroize::Zeroizing;

/// The file's content, or in words why there is none; the words name the file and never what is in it.
pub(crate) fn read(path: &Path, max: u64) -> Result<Zeroizing<Vec<u8>>, String> {
    let failed = |error: std::io::Error| format!("file {path:?}: {}", error.kind());
    // A pipe or device would block, or has nothing left at the second reading.
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(format!("file {path:?} is not a regular file"));
    }
    // With room for all of it the buffer does not move, which would leave a copy behind.
    let expected = usize::try_from(metadata.len().min(max)).unwrap_or_default();
    let mut content = Zeroizing::new(Vec::with_capacity(expected + 1024));
    let read = File::open(path).and_then(|file| file.take(max + 1).read_to_end(&mut content)).map_err(failed)?;
    if read as u64 > max {
        return Err(format!("file {path:?} is larger than {max} bytes"));
    }
    Ok(content)
}

/// A file as it was seen: where it is, when it was changed, its size and its inode.
#[cfg(feature = "_http")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen(PathBuf, Option<(Option<SystemTime>, u64, u64)>);

#[cfg(feature = "_http")]
impl Seen {
    /// As it is now.
    pub(crate) fn new(path: PathBuf) -> Self {
        let found = std::fs::metadata(&path).ok();
        let found = found.map(|found| (found.modified().ok(), found.len(), inode(&found)));
        Self(path, found)
    }
}

#[cfg(all(feature = "_http", unix))]
fn inode(metadata: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(all(feature = "_http", not(unix)))]
fn inode(_: &std::fs::Metadata) -> u64 {
    0
}
