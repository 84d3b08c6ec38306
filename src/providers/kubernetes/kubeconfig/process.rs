//! Runs an exec plugin: without a terminal, bounded in time and in what it may say, and ended with all that it has
//! started when nobody waits for it any more. What it says on standard output is its answer and goes nowhere else.

use std::io::{ErrorKind, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded, never, select};
use zeroize::Zeroizing;

use super::child::{Ending, Plugin};
use super::exec::{MAX_ANSWER, Spec};
use crate::provider::CancelToken;
use crate::thread::Thread;

/// How long a plugin may take.
const LIMIT: Duration = Duration::from_secs(30);
/// How often it is looked whether it has ended.
const GLANCE: Duration = Duration::from_millis(20);
/// How long what it has left behind may hold its outputs open.
const GRACE: Duration = Duration::from_secs(1);
/// How much of the end of its standard error is kept, in bytes.
const TAIL: usize = 4096;
/// The variable that tells it what is asked of it.
const INFO: &str = "KUBERNETES_EXEC_INFO";

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The run was broken off.
    Cancelled,
    /// In words, without anything secret.
    Failed(String),
}

/// What is read of a pipe, up to its end.
type Output = Receiver<Zeroizing<Vec<u8>>>;

/// Runs the plugin and returns what it has answered. Blocks; ends soon after the token fires.
///
/// # Errors
/// Why there is no answer.
pub(super) fn run(spec: &Spec, info: &str, cancel: &CancelToken) -> Result<Zeroizing<Vec<u8>>, Failure> {
    run_within(LIMIT, spec, info, cancel)
}

fn run_within(limit: Duration, spec: &Spec, info: &str, cancel: &CancelToken) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut command = Command::new(&spec.command);
    command.args(spec.args.iter().map(|arg| arg.as_str()));
    command.envs(spec.env.iter().map(|(name, value)| (name, value.as_str()))).env(INFO, info);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A group of its own, so that what it starts ends with it.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut plugin = match command.spawn() {
        Ok(child) => Plugin::new(child),
        Err(error) => {
            let hint = spec.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
            let why = match error.kind() {
                ErrorKind::NotFound => "the command is not there".to_owned(),
                kind => format!("the command cannot be run: {kind}"),
            };
            return Err(Failure::Failed(format!("{why}{hint}")));
        }
    };
    let stdout = plugin.stdout().map(|pipe| listen(pipe, head)).transpose()?.unwrap_or_else(never);
    let stderr = plugin.stderr().map(|pipe| listen(pipe, tail)).transpose()?.unwrap_or_else(never);
    let deadline = Instant::now() + limit;
    let (mut answer, mut exit, mut open_until) = (None, None, deadline);
    while answer.is_none() || exit.is_none() {
        if Instant::now() >= open_until {
            let why = match exit {
                Some(_) => "what it left running holds its standard output open".to_owned(),
                None => format!("it took longer than {} s and was ended", limit.as_secs_f32()),
            };
            return Err(Failure::Failed(why));
        }
        let pause = if answer.is_some() { GLANCE / 10 } else { GLANCE };
        select! {
            recv(if answer.is_none() { stdout.clone() } else { never() }) -> read => {
                answer = Some(read.unwrap_or_default());
            }
            recv(cancel.receiver()) -> _ => return Err(Failure::Cancelled),
            default(pause) => {}
        }
        if answer.as_ref().is_some_and(|answer: &Zeroizing<Vec<u8>>| answer.len() > MAX_ANSWER) {
            return Err(Failure::Failed(format!("its answer is larger than {MAX_ANSWER} bytes")));
        }
        if exit.is_none()
            && let Some(ending) = plugin.ending()
        {
            exit = Some(ending);
            open_until = open_until.min(Instant::now() + GRACE);
        }
    }
    // Where nobody can say how it ended, what it said does.
    let answer = answer.filter(|answer| match exit {
        Some(Ending::Status(status)) => status.success(),
        _ => !answer.is_empty(),
    });
    answer.ok_or_else(|| {
        let how = exit.map(|ending| ending.to_string()).unwrap_or_default();
        let stderr = stderr.recv_timeout(GRACE).unwrap_or_default();
        let words = spec.last_words(&stderr).map(|words| format!(": {words}")).unwrap_or_default();
        Failure::Failed(format!("it failed ({how}){words}"))
    })
}

/// Reads a pipe on a thread of its own, which ends with the pipe.
fn listen(
    mut pipe: impl Read + Send + 'static,
    read: fn(&mut dyn Read) -> Zeroizing<Vec<u8>>,
) -> Result<Output, Failure> {
    let (sender, output) = bounded(1);
    let spawned = Thread::ExecPipe.spawn(move || drop(sender.send(read(&mut pipe))));
    spawned.map(|_| output).map_err(|error| Failure::Failed(format!("no thread to listen to it: {}", error.kind())))
}

/// The beginning of what is said, by one byte more than it may be.
fn head(pipe: &mut dyn Read) -> Zeroizing<Vec<u8>> {
    let mut content = Zeroizing::new(Vec::with_capacity(16 * 1024));
    let _ = pipe.take(MAX_ANSWER as u64 + 1).read_to_end(&mut content);
    content
}

/// The end of what is said.
fn tail(pipe: &mut dyn Read) -> Zeroizing<Vec<u8>> {
    let mut content = Zeroizing::new(Vec::with_capacity(2 * TAIL));
    let mut buffer = Zeroizing::new([0; TAIL]);
    while let Ok(read @ 1..) = pipe.read(&mut buffer[..]) {
        content.extend_from_slice(buffer.get(..read).unwrap_or_default());
        let surplus = content.len().saturating_sub(TAIL);
        content.drain(..surplus);
    }
    content
}

#[cfg(all(test, unix))]
mod tests {
    use super::super::told::plugin;
    use super::*;

    /// Runs a shell script.
    fn script(script: &str, limit: Duration, cancel: &CancelToken) -> Result<String, Failure> {
        let mut spec = plugin();
        spec.command = "/bin/sh".into();
        spec.args = ["-c", script].map(|arg| Zeroizing::new(arg.to_owned())).to_vec();
        let answer = run_within(limit, &spec, "told", cancel)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    fn failed(text: &str) -> String {
        match script(text, LIMIT, &CancelToken::new()).unwrap_err() {
            Failure::Failed(why) => why,
            Failure::Cancelled => panic!("cancelled"),
        }
    }

    #[test]
    fn kubernetes_point_21_a_plugin_is_told_by_a_variable_has_no_input_and_answers_on_its_output() {
        let text = "cat; printf %s \"$KUBERNETES_EXEC_INFO $N\"; echo not this >&2";
        assert_eq!(script(text, LIMIT, &CancelToken::new()).unwrap(), "told given-to-it-too");
    }

    #[test]
    fn kubernetes_point_21_a_failed_plugin_is_shown_by_its_status_and_last_line_and_never_by_its_output() {
        let why = failed("echo s3cr3t; echo first >&2; echo last >&2; exit 3");
        assert_eq!(why, "it failed (exit status: 3): last");
        assert!(failed("kill -9 $$").contains("signal: 9"));
        let mut spec = plugin();
        spec.command = "/no/such/plugin".into();
        spec.hint = Some("install it".to_owned());
        let absent = run(&spec, "", &CancelToken::new()).unwrap_err();
        assert_eq!(absent, Failure::Failed("the command is not there; install it".to_owned()));
    }

    #[test]
    fn kubernetes_point_21_where_the_host_leaves_no_child_to_wait_for_the_answer_is_used_and_nobody_else_is_killed() {
        const IGNORED: &str = "CHILDREN_ARE_NOT_WAITED_FOR";
        if std::env::var_os(IGNORED).is_none() {
            // What is ignored stays so in a program that is started.
            let ignoring = "trap '' CHLD; exec \"$0\" \"$@\"";
            let name = "where_the_host_leaves_no_child_to_wait_for_the_answer_is_used_and_nobody_else_is_killed";
            let mut again = Command::new("/bin/bash");
            again.args(["-c", ignoring]).arg(std::env::current_exe().unwrap()).args([name, "--test-threads", "1"]);
            // Nobody can wait for it but with the signal as it is here.
            let done = again.env(IGNORED, "1").output().unwrap();
            let told = String::from_utf8_lossy(&done.stdout);
            assert!(done.status.success() && told.contains("1 passed"), "{told}");
            return;
        }
        // The answer is there at once, and so is the end of the plugin, of which nothing else is left to be seen.
        let begun = Instant::now();
        assert_eq!(script("echo answer", LIMIT, &CancelToken::new()).unwrap(), "answer\n");
        assert!(begun.elapsed() < LIMIT / 2, "it was not waited for until the limit");
        // Its group is that of its id. What it leaves there would be hit by a signal to either.
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("id");
        let text = format!("sleep 600 >/dev/null 2>&1 & echo $! > {}; echo last >&2", file.display());
        assert_eq!(failed(&text), "it failed (how is unknown: the host takes its children's ends away): last");
        assert!(is_alive(&file), "nobody is killed by an id that may be another's");
        end(&file);
        // One that runs is still ended with all that it has started.
        let text = format!("sleep 600 & echo $! > {}; wait", file.display());
        let why = script(&text, Duration::from_secs(1), &CancelToken::new()).unwrap_err();
        assert_eq!(why, Failure::Failed("it took longer than 1 s and was ended".to_owned()));
        wait_until("the child of the plugin lives", || !is_alive(&file));
    }

    #[test]
    fn kubernetes_point_21_a_plugin_that_floods_is_ended_and_its_complaints_are_bounded() {
        assert!(failed("yes s3cr3t").contains("larger than 1048576 bytes"));
        let why = failed("yes filler | head -n 1000000 >&2; echo end >&2; exit 1");
        assert_eq!(why, "it failed (exit status: 1): end");
    }

    /// The process whose id the script has written there.
    fn is_alive(file: &std::path::Path) -> bool {
        let id = std::fs::read_to_string(file).unwrap_or_default();
        let id: i32 = id.trim().parse().unwrap();
        rustix::process::test_kill_process(rustix::process::Pid::from_raw(id).unwrap()).is_ok()
    }

    /// Ends the process whose id the script has written there.
    fn end(file: &std::path::Path) {
        let id = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
        let id = rustix::process::Pid::from_raw(id).unwrap();
        rustix::process::kill_process(id, rustix::process::Signal::KILL).unwrap();
    }

    fn wait_until(what: &str, is: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !is() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn kubernetes_point_21_a_plugin_that_hangs_is_ended_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("id");
        let text = format!("sleep 600 & echo $! > {}; wait", file.display());
        let begun = Instant::now();
        let why = script(&text, Duration::from_secs(1), &CancelToken::new()).unwrap_err();
        assert_eq!(why, Failure::Failed("it took longer than 1 s and was ended".to_owned()));
        assert!(begun.elapsed() < Duration::from_secs(20));
        wait_until("the child of the plugin lives", || !is_alive(&file));
    }

    #[test]
    fn kubernetes_point_21_a_plugin_ends_when_the_token_fires() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("id");
        let text = format!("echo $$ > {0}.new; mv {0}.new {0}; sleep 600", file.display());
        let cancel = CancelToken::new();
        let token = cancel.clone();
        let running = std::thread::spawn(move || script(&text, LIMIT, &token));
        wait_until("the plugin does not run", || file.exists());
        cancel.cancel();
        assert_eq!(running.join().unwrap().unwrap_err(), Failure::Cancelled);
        assert!(!is_alive(&file), "it has been waited for");
    }

    #[test]
    fn kubernetes_point_21_what_a_plugin_leaves_running_does_not_hold_up_its_answer_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("id");
        let text = format!("sleep 600 >/dev/null 2>&1 & echo $! > {}; echo answer", file.display());
        assert_eq!(script(&text, LIMIT, &CancelToken::new()).unwrap(), "answer\n");
        assert!(is_alive(&file));
        end(&file);
        // What holds the output open makes the answer's end unknown.
        let begun = Instant::now();
        assert!(failed("sleep 5 & echo answer").contains("holds its standard output open"));
        assert!(begun.elapsed() < Duration::from_secs(4));
    }
}
