//! A plugin as a child process: how it is seen to end, and how it is ended with all that it has started.
//!
//! The id of a process is its own only until somebody has waited for it. A host that ignores `SIGCHLD`, or that waits for
//! all children itself, takes that away: the plugin's end is then seen, but not how it ended, and its id may be that of
//! an innocent process at once. So where the system knows handles of processes (Linux), the plugin is waited for and
//! ended by its handle, and no signal goes to an id that nobody holds.

use std::fmt;
use std::process::{Child, ChildStderr, ChildStdout, ExitStatus};

#[cfg(unix)]
use rustix::process::{Pid, Signal, kill_process_group};
#[cfg(target_os = "linux")]
use rustix::{
    fd::OwnedFd,
    io::Errno,
    process::{PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, pidfd_send_signal, waitid},
};

/// How a plugin has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// So.
    Status(ExitStatus),
    /// Nobody knows: the host has taken it away.
    Unknown,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => status.fmt(f),
            Self::Unknown => f.write_str("how is unknown: the host takes its children's ends away"),
        }
    }
}

/// A plugin that was started as the first of its group. Unless it has ended, it is ended with all that it has started
/// when it is dropped; what it left running when it ended is meant to stay.
pub(super) struct Plugin {
    child: Child,
    #[cfg(target_os = "linux")]
    handle: Option<OwnedFd>,
    ending: Option<Ending>,
}

impl Plugin {
    pub(super) fn new(child: Child) -> Self {
        #[cfg(target_os = "linux")]
        {
            let handle = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
            // Whose handle it is shows by whether there is a child to wait for.
            let probe = |handle: &OwnedFd| wait(handle, WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT);
            let (handle, ending) = match handle.and_then(|handle| probe(&handle).map(|_| handle)) {
                Ok(handle) => (Some(handle), None),
                Err(Errno::CHILD | Errno::SRCH) => (None, Some(Ending::Unknown)),
                // An old system, or a sandbox.
                Err(_) => (None, None),
            };
            Self { child, handle, ending }
        }
        #[cfg(not(target_os = "linux"))]
        Self { child, ending: None }
    }

    /// What it says on standard output; once.
    pub(super) fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// What it says on standard error; once.
    pub(super) fn stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// How it has ended, if it has. Does not block.
    pub(super) fn ending(&mut self) -> Option<Ending> {
        if self.ending.is_none() {
            self.ending = self.look();
        }
        self.ending
    }

    fn look(&mut self) -> Option<Ending> {
        #[cfg(target_os = "linux")]
        if let Some(handle) = &self.handle {
            return match wait(handle, WaitIdOptions::NOHANG) {
                Ok(None) | Err(Errno::INTR) => None,
                Ok(Some(status)) => Some(Ending::Status(exit_status(&status))),
                Err(_) => Some(Ending::Unknown),
            };
        }
        match self.child.try_wait() {
            Ok(status) => status.map(Ending::Status),
            Err(_) => Some(Ending::Unknown),
        }
    }

    /// Ends it, which has not ended, and waits for that.
    fn end(&mut self) {
        // As long as it has not been waited for, its id is nobody else's, and so is that of its group.
        #[cfg(unix)]
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        #[cfg(target_os = "linux")]
        if let Some(handle) = &self.handle {
            let _ = pidfd_send_signal(handle, Signal::KILL);
            while matches!(wait(handle, WaitIdOptions::empty()), Err(Errno::INTR)) {}
            return;
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        if self.ending().is_none() {
            self.end();
        }
    }
}

/// Waits for the end of that child.
#[cfg(target_os = "linux")]
fn wait(handle: &OwnedFd, options: WaitIdOptions) -> Result<Option<WaitIdStatus>, Errno> {
    use std::os::fd::AsFd;
    waitid(WaitId::PidFd(handle.as_fd()), options | WaitIdOptions::EXITED)
}

/// The same status as the standard library has it.
#[cfg(target_os = "linux")]
fn exit_status(status: &WaitIdStatus) -> ExitStatus {
    use std::os::unix::process::ExitStatusExt;
    let dumped = if status.dumped() { 0x80 } else { 0 };
    let raw = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => (code & 0xff) << 8,
        (None, signal) => signal.unwrap_or_default() | dumped,
    };
    ExitStatus::from_raw(raw)
}
