//! What the examples have in common: lines that somebody may read, and the order to leave.

#![allow(dead_code, reason = "each example uses a part of it")]

use std::fmt::Display;
use std::io::{IsTerminal, Write, copy, sink, stderr, stdin, stdout};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cluster_provisioning::{ClusterNode, NoEvent, ProvisioningEvent};

/// Where an example prints to, and which tells it when to leave.
pub struct Console {
    leaving: Arc<AtomicBool>,
    deadline: Option<Instant>,
}

impl Console {
    /// Leaving is ordered by SIGTERM or Ctrl-C; by the end of the time given or, without one, of the input (Ctrl-D, or a
    /// pipe that is closed); and by output that nobody reads any more. A second signal ends the process at once.
    pub fn open(duration: Option<Duration>) -> Result<Self, String> {
        let leaving = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
            signal_hook::flag::register_conditional_default(signal, Arc::clone(&leaving))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&leaving)))
                .map_err(|error| format!("no handler for a signal: {error}"))?;
        }
        if duration.is_none() && input_can_end() {
            let input = Arc::clone(&leaving);
            std::thread::spawn(move || {
                _ = copy(&mut stdin(), &mut sink());
                input.store(true, Ordering::Relaxed);
            });
        }
        Ok(Self { leaving, deadline: duration.map(|duration| Instant::now() + duration) })
    }

    /// Prints a line. If nobody reads it (`| head`), it is time to leave.
    pub fn say(&self, line: impl Display) {
        if writeln!(stdout(), "{line}").is_err() {
            self.leaving.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it is time to leave.
    pub fn is_over(&self) -> bool {
        self.leaving.load(Ordering::Relaxed) || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Says why there is no event, if that is worth a line.
    ///
    /// # Errors
    /// If there will be none any more.
    pub fn no_event(&self, why: NoEvent) -> Result<(), String> {
        match why {
            NoEvent::Nothing => {}
            NoEvent::Lagged(_) => self.say(format_args!("({why})")),
            NoEvent::Closed => return Err("the service has stopped".to_owned()),
        }
        Ok(())
    }

    /// Prints an event, with the nodes that a snapshot brings.
    pub fn show(&self, event: &ProvisioningEvent) {
        let time = event.at().to_string();
        self.say(format_args!("{}  #{:<4} {event}", &time[11..23], event.position().seq_no));
        let ProvisioningEvent::Snapshot(delivery) = event else { return };
        let diff = &delivery.diff;
        for (mark, nodes) in [("-", diff.left()), ("+", diff.joined()), ("~", diff.updated())] {
            for node in nodes {
                let kinds: Vec<_> = node.kinds().collect();
                let place = format!("{}:{}", node.address(), node.port());
                let life = node.incarnation();
                self.say(format_args!("{:19}{mark} {} at {place}, incarnation {life}, kinds {kinds:?}", "", node.id()));
            }
        }
    }
}

/// Whether the input is a terminal or a pipe. Where there is none (`/dev/null`, as under systemd) its end says nothing.
fn input_can_end() -> bool {
    #[cfg(unix)]
    if std::fs::metadata("/dev/stdin").is_ok_and(|input| std::os::unix::fs::FileTypeExt::is_fifo(&input.file_type())) {
        return true;
    }
    stdin().is_terminal()
}

/// The end of an example: what went wrong, if anything did, and the exit code.
pub fn end(outcome: Result<(), String>) -> ExitCode {
    let Err(problem) = outcome else { return ExitCode::SUCCESS };
    _ = writeln!(stderr(), "{problem}");
    ExitCode::FAILURE
}

/// Reads `ID@HOST:PORT`.
pub fn parse_node(text: &str) -> Result<ClusterNode, String> {
    let parts = text.split_once('@').and_then(|(id, place)| Some((id, place.rsplit_once(':')?)));
    let (id, (host, port)) = parts.ok_or_else(|| format!("{text} is not ID@HOST:PORT"))?;
    let port = port.parse().map_err(|_| format!("{port} is no port: ID@HOST:PORT is wanted"))?;
    node(id, host, port)
}

/// The local node. Its incarnation is the time of the start, so that a restart is told from the life before.
pub fn node(id: &str, host: &str, port: u16) -> Result<ClusterNode, String> {
    let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_millis() as u64);
    let node = ClusterNode::builder(id, host, port).incarnation(started).kind("demo");
    node.build().map_err(|error| error.to_string())
}
