//! Processes that an example starts, what they print, and their end with the example.

#![allow(dead_code, reason = "each example uses a part of it")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::support::Console;

/// A line that a child has printed.
pub struct Line {
    pub child: String,
    pub text: String,
}

/// How long those who still run at the end have to end by themselves.
const GRACE: Duration = Duration::from_secs(3);

/// The children by name. Each ends by itself when its input does, so that none is left where this process ends, or is
/// killed; who does not is killed with this.
pub struct Children {
    running: BTreeMap<String, (Child, Option<ChildStdin>)>,
    sender: Sender<Line>,
    printed: Receiver<Line>,
    /// All that was printed so far.
    pub lines: Vec<Line>,
    ends: Instant,
}

impl Children {
    /// Whatever is waited for has to come within that time.
    pub fn new(within: Duration) -> Self {
        let (sender, printed) = channel();
        Self { running: BTreeMap::new(), sender, printed, lines: Vec::new(), ends: Instant::now() + within }
    }

    /// Starts a process of that name. Its lines come under the name.
    pub fn start(&mut self, name: &str, mut command: Command) -> Result<(), String> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{name} does not start: {error}"))?;
        let input = child.stdin.take();
        if let Some(output) = child.stdout.take() {
            let (sender, child) = (self.sender.clone(), name.to_owned());
            std::thread::spawn(move || {
                let mut lines = BufReader::new(output).lines().map_while(Result::ok);
                lines.try_for_each(|text| sender.send(Line { child: child.clone(), text }))
            });
        }
        self.running.insert(name.to_owned(), (child, input));
        Ok(())
    }

    /// Waits until what is asked for can be answered from the lines.
    pub fn wait<T>(
        &mut self,
        console: &Console,
        what: &str,
        mut found: impl FnMut(&[Line]) -> Option<T>,
    ) -> Result<T, String> {
        loop {
            if let Some(found) = found(&self.lines) {
                return Ok(found);
            }
            if console.is_over() {
                return Err("ended before it was over".to_owned());
            }
            if Instant::now() >= self.ends {
                let last: Vec<_> = self.lines.iter().rev().take(12).collect();
                let last: String = last.iter().rev().map(|line| format!("\n  {}: {}", line.child, line.text)).collect();
                return Err(format!("it did not come to this: {what}. The last that was printed:{last}"));
            }
            match self.printed.recv_timeout(Duration::from_millis(50)) {
                Ok(line) => self.lines.push(line),
                Err(RecvTimeoutError::Timeout) => self.look_after(what)?,
                Err(RecvTimeoutError::Disconnected) => return Err(format!("nobody prints any more: {what}")),
            }
        }
    }

    /// Nobody has ended who was not told to.
    fn look_after(&mut self, what: &str) -> Result<(), String> {
        for (name, (child, _)) in &mut self.running {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(format!("{name} has ended by itself ({status}), while this was waited for: {what}"));
            }
        }
        Ok(())
    }

    /// As `kill -9`: it has no time for anything.
    pub fn kill(&mut self, name: &str) {
        if let Some((mut child, _)) = self.running.remove(name) {
            _ = child.kill();
            _ = child.wait();
        }
    }

    /// Tells it to end by SIGTERM, and waits until it has.
    pub fn terminate(&mut self, name: &str) -> Result<ExitStatus, String> {
        if let Some((child, input)) = self.running.get_mut(name) {
            let told = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
            if !told.is_ok_and(|status| status.success()) {
                drop(input.take());
            }
        }
        self.ended(name)
    }

    /// Ends its input, and waits until it has ended by that.
    pub fn end_input(&mut self, name: &str) -> Result<ExitStatus, String> {
        if let Some((_, input)) = self.running.get_mut(name) {
            drop(input.take());
        }
        self.ended(name)
    }

    fn ended(&mut self, name: &str) -> Result<ExitStatus, String> {
        let Some((mut child, _input)) = self.running.remove(name) else { return Err(format!("{name} does not run")) };
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) if Instant::now() < self.ends => std::thread::sleep(Duration::from_millis(5)),
                _ => {
                    _ = child.kill();
                    _ = child.wait();
                    return Err(format!("{name} does not end though it was told to"));
                }
            }
        }
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        self.running.values_mut().for_each(|(_, input)| drop(input.take()));
        let ends = Instant::now() + GRACE;
        for (child, _) in self.running.values_mut() {
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < ends {
                std::thread::sleep(Duration::from_millis(5));
            }
            _ = child.kill();
            _ = child.wait();
        }
    }
}
