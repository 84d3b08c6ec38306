//! What is trusted and who we are, in PEM form: in files, or held in memory by an owner who may replace it.

use std::fmt;
use std::path::PathBuf;
#[cfg(feature = "kubeconfig")]
use std::sync::{Arc, Mutex, PoisonError};

use zeroize::Zeroizing;

use crate::file;

/// Certificates or a key in PEM form.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Pem {
    File(PathBuf),
    /// What stood at that place.
    #[cfg(feature = "kubeconfig")]
    Held {
        place: Arc<str>,
        content: Arc<Zeroizing<Vec<u8>>>,
    },
}

impl Pem {
    /// The content; the words of a failure never hold any of it.
    pub(super) fn read(&self, max: u64) -> Result<Zeroizing<Vec<u8>>, String> {
        match self {
            Self::File(path) => file::read(path, max),
            #[cfg(feature = "kubeconfig")]
            Self::Held { content, .. } => Ok(Zeroizing::clone(content)),
        }
    }

    /// The file, if it is one.
    pub(super) fn into_path(self) -> Option<PathBuf> {
        match self {
            Self::File(path) => Some(path),
            #[cfg(feature = "kubeconfig")]
            Self::Held { .. } => None,
        }
    }
}

/// Where it is, for errors.
impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {path:?}"),
            #[cfg(feature = "kubeconfig")]
            Self::Held { place, .. } => f.write_str(place),
        }
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pem({self})")
    }
}

/// Who is trusted beside a folder of authorities, and who we are: our certificate and its key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Material {
    pub(crate) ca: Option<Pem>,
    pub(crate) client: Option<(Pem, Pem)>,
}

/// Material that its owner may replace; connections made with what it was before are not used again. Clones share it.
#[cfg(feature = "kubeconfig")]
#[derive(Clone, Debug)]
pub(crate) struct SharedMaterial(Arc<Mutex<(u64, Material)>>);

#[cfg(feature = "kubeconfig")]
impl SharedMaterial {
    pub(crate) fn new(material: Material) -> Self {
        Self(Arc::new(Mutex::new((0, material))))
    }

    /// Puts other material in its place; the same leaves everything as it is.
    pub(crate) fn replace(&self, material: Material) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.1 != material {
            *held = (held.0 + 1, material);
        }
    }

    /// The material now, and its number.
    pub(crate) fn current(&self) -> (u64, Material) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
