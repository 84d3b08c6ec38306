//! Where a provider that finds by itself that nodes are dead tells of them, so that there is one list of who is blocked.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::topology::NodeId;

/// What a failure detector has decided about a node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exclusion {
    /// The node is out of the members for that time, whichever provider shows it.
    Begins {
        /// Which node.
        node: NodeId,
        /// Why, in words.
        reason: String,
        /// For how long.
        lasting: Duration,
    },
    /// It may be a member again before that time is over.
    Ends {
        /// Which node.
        node: NodeId,
    },
}

type Listener = Box<dyn Fn(Exclusion) + Send + Sync>;

/// Where a provider tells which nodes its failure detector excludes: the hub's block list, in a service. Clones are the
/// same. One that is connected to nothing takes everything and does nothing.
#[derive(Clone, Default)]
pub struct Exclusions(Arc<OnceLock<Listener>>);

impl Exclusions {
    /// What is told goes to that listener, which must not block.
    pub fn to(listener: impl Fn(Exclusion) + Send + Sync + 'static) -> Self {
        let exclusions = Self::default();
        exclusions.connect(listener);
        exclusions
    }

    /// From now on what is told goes there. The first listener stays.
    pub(crate) fn connect(&self, listener: impl Fn(Exclusion) + Send + Sync + 'static) {
        _ = self.0.set(Box::new(listener));
    }

    /// Tells of one.
    pub fn tell(&self, exclusion: Exclusion) {
        if let Some(listener) = self.0.get() {
            listener(exclusion);
        }
    }
}

impl fmt::Debug for Exclusions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exclusions")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn m3_1_what_is_told_reaches_the_first_listener_and_without_one_nobody() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let (heard, exclusions) = (Arc::clone(&told), Exclusions::default());
        let ends = Exclusion::Ends { node: NodeId::new("a").unwrap() };
        exclusions.tell(ends.clone());
        exclusions.connect(move |exclusion| heard.lock().unwrap().push(exclusion));
        exclusions.connect(|_| panic!("a second listener"));
        exclusions.clone().tell(ends.clone());
        assert_eq!(*told.lock().unwrap(), [ends]);
    }
}
