//! What the library's threads are called: each name says what its thread does, and for which provider.
//!
//! Linux keeps 15 bytes of a name, and that is what debuggers and `top -H` show. So what a thread does comes first and
//! is short: what is cut off is the end of a provider's id.

use std::fmt;
use std::io;
use std::thread::{Builder, JoinHandle};

/// A thread of the library, which is also its name.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Thread<'a> {
    /// Runs the hub, and calls the bridges.
    Hub,
    /// Reads the stream of that provider.
    Watch(&'a str),
    /// Asks at once whether the backend of that provider answers.
    Check(&'a str),
    /// Asks the backends of pending providers again.
    Pending,
    /// Decides about the local node's registrations.
    Registrations,
    /// Keeps the local node registered with that provider.
    Join(&'a str),
    /// A connection to Consul, for that purpose.
    #[cfg(feature = "consul")]
    Consul(Purpose),
    /// A connection to an API server of Kubernetes, for that purpose.
    #[cfg(feature = "kubernetes")]
    Kubernetes(Purpose),
    /// Carries the messages of a gossip member.
    #[cfg(all(feature = "gossip", unix))]
    Gossip,
    /// Looks up the name of a gossip member's host.
    #[cfg(all(feature = "gossip", unix))]
    GossipLookup,
    /// Looks up the name of a backend's host.
    #[cfg(feature = "_http")]
    Lookup,
    /// Runs an exec plugin of a kubeconfig.
    #[cfg(feature = "kubeconfig")]
    Exec,
    /// Reads what an exec plugin says.
    #[cfg(feature = "kubeconfig")]
    ExecPipe,
}

/// What a connection is for.
#[cfg(feature = "_http")]
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    Watch,
    Probe,
    #[cfg(feature = "kubernetes")]
    Ahead,
    #[cfg(feature = "consul")]
    Check,
}

impl fmt::Display for Thread<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Thread::Hub => f.write_str("cluster-hub"),
            Thread::Watch(id) => write!(f, "watch-{id}"),
            Thread::Check(id) => write!(f, "check-{id}"),
            Thread::Pending => f.write_str("pending"),
            Thread::Registrations => f.write_str("registrations"),
            Thread::Join(id) => write!(f, "join-{id}"),
            #[cfg(feature = "consul")]
            Thread::Consul(purpose) => write!(f, "consul-{purpose}"),
            #[cfg(feature = "kubernetes")]
            Thread::Kubernetes(purpose) => write!(f, "k8s-{purpose}"),
            #[cfg(all(feature = "gossip", unix))]
            Thread::Gossip => f.write_str("gossip"),
            #[cfg(all(feature = "gossip", unix))]
            Thread::GossipLookup => f.write_str("gossip-lookup"),
            #[cfg(feature = "_http")]
            Thread::Lookup => f.write_str("name-lookup"),
            #[cfg(feature = "kubeconfig")]
            Thread::Exec => f.write_str("k8s-exec"),
            #[cfg(feature = "kubeconfig")]
            Thread::ExecPipe => f.write_str("k8s-exec-pipe"),
        }
    }
}

#[cfg(feature = "_http")]
impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Purpose::Watch => "watch",
            Purpose::Probe => "probe",
            #[cfg(feature = "kubernetes")]
            Purpose::Ahead => "ahead",
            #[cfg(feature = "consul")]
            Purpose::Check => "check",
        })
    }
}

impl Thread<'_> {
    /// Starts it.
    ///
    /// # Errors
    /// The system's refusal.
    pub(crate) fn spawn(self, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
        Builder::new().name(self.to_string()).spawn(work)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Linux keeps.
    const KEPT: usize = 15;

    /// Each of them, with the id given where it has one.
    fn all(id: &str) -> Vec<Thread<'_>> {
        let mut all = vec![Thread::Hub, Thread::Watch(id), Thread::Check(id), Thread::Pending];
        all.extend([Thread::Registrations, Thread::Join(id)]);
        #[cfg(feature = "consul")]
        all.extend([Purpose::Watch, Purpose::Probe, Purpose::Check].map(Thread::Consul));
        #[cfg(feature = "kubernetes")]
        all.extend([Purpose::Watch, Purpose::Probe, Purpose::Ahead].map(Thread::Kubernetes));
        #[cfg(all(feature = "gossip", unix))]
        all.extend([Thread::Gossip, Thread::GossipLookup]);
        #[cfg(feature = "_http")]
        all.push(Thread::Lookup);
        #[cfg(feature = "kubeconfig")]
        all.extend([Thread::Exec, Thread::ExecPipe]);
        all
    }

    #[test]
    fn of_each_name_only_the_end_of_an_id_is_cut_off() {
        for (thread, stem) in all("consul-b").iter().zip(all("")) {
            let (name, stem) = (thread.to_string(), stem.to_string());
            let has_id = name != stem;
            assert!(stem.len() <= if has_id { KEPT - 8 } else { KEPT }, "{name}");
        }
    }

    #[test]
    fn each_name_stands_in_the_readme() {
        let readme = include_str!("../README.md");
        for thread in all("<id>") {
            assert!(readme.contains(&format!("| `{thread}` |")), "{thread}");
        }
    }
}
