//! Members in processes of their own, as their parent sees and handles them; killed also when the test fails.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use cluster_provisioning::ProviderDescriptor;

use crate::member::{Line, Node, PREFIX, PROCESS, SETUP, Setup, now};

/// A member, or a watcher, in a process of its own, with all that it told.
pub struct MemberProcess {
    name: String,
    child: Child,
    commands: ChildStdin,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    lines: Mutex<Vec<Line>>,
    changed: Condvar,
}

impl Log {
    fn push(&self, line: Line) {
        self.lines.lock().unwrap().push(line);
        self.changed.notify_all();
    }
}

/// A node of that id, with a life of its own.
pub fn node(id: &str) -> Node {
    let port = 20_000 + id.bytes().fold(0, |sum: u16, byte| sum.wrapping_mul(31).wrapping_add(byte.into())) % 10_000;
    Node {
        id: id.to_owned(),
        address: "127.0.0.1".to_owned(),
        port,
        incarnation: now() / 1_000_000,
        kinds: vec!["user".to_owned()],
        metadata: Vec::new(),
    }
}

impl MemberProcess {
    /// A member of that id.
    pub fn member(id: &str, providers: &[ProviderDescriptor]) -> Self {
        Self::spawn(id, &Setup { node: Some(node(id)), providers: providers.to_vec() })
    }

    /// A process that only watches.
    pub fn watcher(name: &str, providers: &[ProviderDescriptor]) -> Self {
        Self::spawn(name, &Setup { node: None, providers: providers.to_vec() })
    }

    pub fn spawn(name: &str, setup: &Setup) -> Self {
        Self::run(name, Command::new(std::env::current_exe().unwrap()), setup)
    }

    /// The same, where the command runs this very program, in surroundings of its own.
    pub fn run(name: &str, mut command: Command, setup: &Setup) -> Self {
        Self::of(name, command.env(SETUP, serde_json::to_string(setup).unwrap()), PROCESS)
    }

    /// A process that is the ignored test of that name, and tells and is told by lines.
    pub fn of(name: &str, command: &mut Command, test: &str) -> Self {
        let mut child = command
            .args(["--ignored", "--exact", test, "--nocapture", "--test-threads=1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Log::default());
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let told = Arc::clone(&log);
        std::thread::spawn(move || {
            for text in BufReader::new(out).lines().map_while(Result::ok) {
                if let Some((_, line)) = text.split_once(PREFIX) {
                    told.push(serde_json::from_str(line).unwrap());
                }
            }
        });
        let told = Arc::clone(&log);
        std::thread::spawn(move || {
            for text in BufReader::new(err).lines().map_while(Result::ok) {
                told.push(Line { at: now(), what: "noise".to_owned(), text, ..Line::default() });
            }
        });
        let commands = child.stdin.take().unwrap();
        Self { name: name.to_owned(), child, commands, log }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it without a farewell.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends the process a signal such as `STOP`.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").arg(format!("-{signal}")).arg(self.child.id().to_string()).status();
        assert!(status.unwrap().success());
    }

    /// Gives a command.
    pub fn command(&mut self, command: &str) {
        writeln!(self.commands, "{command}").unwrap();
    }

    /// Lets it drain, and waits until it has.
    pub fn drain(&mut self, within: Duration) -> Line {
        self.command("drain");
        self.wait_line("drained", within, |line| line.what == "drained")
    }

    /// All that it told so far.
    pub fn lines(&self) -> Vec<Line> {
        self.log.lines.lock().unwrap().clone()
    }

    /// How many lines it told so far: where [`since`](Self::since) begins.
    pub fn mark(&self) -> usize {
        self.log.lines.lock().unwrap().len()
    }

    /// What it told after the mark.
    pub fn since(&self, mark: usize) -> Vec<Line> {
        self.log.lines.lock().unwrap().iter().skip(mark).cloned().collect()
    }

    /// Waits until all that it told makes `wanted` something.
    pub fn wait_for<T>(&self, what: &str, within: Duration, mut wanted: impl FnMut(&[Line]) -> Option<T>) -> T {
        let deadline = Instant::now() + within;
        let mut lines = self.log.lines.lock().unwrap();
        loop {
            if let Some(found) = wanted(&lines) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // The lines are printed when this is dropped; the lock must be free by then.
                drop(lines);
                panic!("{}: not within {within:?}: {what}", self.name);
            }
            lines = self.log.changed.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// Waits for a line, told at any time.
    pub fn wait_line(&self, what: &str, within: Duration, wanted: impl FnMut(&Line) -> bool) -> Line {
        self.wait_line_since(0, what, within, wanted)
    }

    /// Waits for a line that is told after the mark.
    pub fn wait_line_since(
        &self,
        mark: usize,
        what: &str,
        within: Duration,
        mut wanted: impl FnMut(&Line) -> bool,
    ) -> Line {
        self.wait_for(what, within, |lines| lines.iter().skip(mark).find(|line| wanted(line)).cloned())
    }

    /// Waits until the service runs; panics with the reason if it was refused.
    pub fn wait_started(&self, within: Duration) {
        let line = self.wait_line("started", within, |line| matches!(line.what.as_str(), "started" | "refused"));
        assert_eq!(line.what, "started", "{}: {}", self.name, line.text);
    }

    /// Waits until the service was refused, and tells why.
    pub fn wait_refused(&self, within: Duration) -> Line {
        let line = self.wait_line("refused", within, |line| matches!(line.what.as_str(), "started" | "refused"));
        assert_eq!(line.what, "refused", "{} was accepted", self.name);
        line
    }

    /// Waits until the present members are these.
    pub fn wait_members(&self, ids: &[&str], within: Duration) -> Line {
        self.wait_for(&format!("members {ids:?}"), within, |lines| {
            lines.iter().rfind(|line| line.what == "snapshot").filter(|line| line.ids == ids).cloned()
        })
    }

    /// Waits until the provider's present health is this.
    pub fn wait_health(&self, provider: &str, health: &str, within: Duration) -> Line {
        self.wait_for(&format!("{provider} {health}"), within, |lines| {
            let mut of_it = lines.iter().rev().filter(|line| line.what == "health" && line.provider == provider);
            of_it.next().filter(|line| line.value == health).cloned()
        })
    }

    /// Waits until the provider is no longer healthy, or is so after the mark.
    pub fn wait_unhealthy_since(&self, mark: usize, provider: &str, within: Duration) -> Line {
        self.wait_line_since(mark, &format!("{provider} not healthy"), within, |line| {
            line.what == "health" && line.provider == provider && line.value != "healthy"
        })
    }

    /// The present members.
    pub fn members(&self) -> Vec<String> {
        let lines = self.log.lines.lock().unwrap();
        lines.iter().rfind(|line| line.what == "snapshot").map_or_else(Vec::new, |line| line.ids.clone())
    }

    /// Everyone who left, by what snapshots and Remoting were told after the mark.
    pub fn who_left(&self, mark: usize) -> Vec<String> {
        let mut left: Vec<String> = self
            .log
            .lines
            .lock()
            .unwrap()
            .iter()
            .skip(mark)
            .flat_map(|line| match line.what.as_str() {
                "remote" if line.value == "leave" => line.ids.clone(),
                _ => line.left.clone(),
            })
            .collect();
        left.sort();
        left.dedup();
        left
    }

    /// What holds for every process, whatever happens to the servers: deliveries without a gap, no empty topology once
    /// there was one, no panic.
    pub fn check(&self) {
        let (mut last, mut shown) = (0, false);
        for line in self.lines() {
            if line.seq > 0 {
                assert!(last == 0 || line.seq == last + 1, "{}: lost or repeated before {line:?}", self.name);
                last = line.seq;
            }
            if line.what == "snapshot" {
                assert!(!(shown && line.ids.is_empty()), "{}: an empty topology: {line:?}", self.name);
                shown |= !line.ids.is_empty();
            }
            assert!(line.what != "error" && !line.text.contains("panicked"), "{}: {line:?}", self.name);
        }
    }
}

/// What a test that failed wants to see.
impl Drop for MemberProcess {
    fn drop(&mut self) {
        self.kill();
        if !std::thread::panicking() {
            return;
        }
        println!("-- {}", self.name);
        // Poisoned where a predicate panicked.
        let lines = self.log.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for line in lines.iter() {
            let who = line.ids.join(",");
            println!("{} {:9} {} [{who}] {} {}", clock(line.at), line.what, line.value, line.code, line.text);
        }
    }
}

/// The time of day, in UTC.
pub fn clock(at: u64) -> String {
    let millis = at / 1_000_000;
    let (seconds, millis) = (millis / 1000, millis % 1000);
    format!("{:02}:{:02}:{:02}.{millis:03}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}

/// How long after the one the other came.
pub fn after(from: u64, to: u64) -> Duration {
    Duration::from_nanos(to.saturating_sub(from))
}
