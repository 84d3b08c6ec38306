//! A provider of one's own, with its factory, in under 60 lines: members from a text file that is read again and again.
//!
//! `cargo run --example custom_provider` needs nothing installed and ends by itself.

mod support;

use std::fs;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use cluster_provisioning::*;

use support::Console;

/// Shows the members listed in the file that the parameter `path` names, one per line: `id address port`.
#[derive(Clone)]
struct TextFile(ProviderDescriptor);

impl ClusterProvider for TextFile {
    fn descriptor(&self) -> &ProviderDescriptor {
        &self.0
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities::WATCH
    }
    fn refresh_interval(&self) -> Option<Duration> {
        Some(Duration::from_secs(1))
    }
    fn check_connectivity(&self, _: &CancelToken) -> Result<(), ProvisioningError> {
        self.read().map(drop)
    }
    fn watch(&self, cancel: &CancelToken) -> Result<Box<dyn ProviderStream>, ProvisioningError> {
        Ok(Box::new(Watch(self.clone(), cancel.clone())))
    }
}

impl TextFile {
    fn read(&self) -> Result<ProviderEvent, ProvisioningError> {
        let text = fs::read_to_string(self.0.required("path")?).map_err(|error| {
            ProvisioningError::new(ErrorCode::BackendUnavailable, "reading the list of members", error.to_string())
        })?;
        let mut nodes = MembersBuilder::new(); // skips and counts what is no node
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let mut word = || words.next().unwrap_or_default();
            nodes.push(ClusterNode::builder(word(), word(), word().parse().unwrap_or(0)).build());
        }
        let (members, skipped) = nodes.build();
        Ok(ProviderEvent::Snapshot { members, revision: Revision::NONE, skipped })
    }
}

struct Watch(TextFile, CancelToken);

impl ProviderStream for Watch {
    fn next(&mut self) -> ProviderEvent {
        if self.1.wait(Duration::from_millis(100)) {
            return ProviderEvent::Terminated(ProviderTermination::Ended);
        }
        // An unchanged set is a refresh, which nobody is bothered with. After an error the last set stays.
        self.0.read().unwrap_or_else(|error| ProviderEvent::Degraded { error })
    }
}

struct TextFileFactory;

impl ProviderFactory for TextFileFactory {
    fn kind(&self) -> ProviderKind {
        ProviderKind::new("text-file").expect("a valid name")
    }
    fn validate(&self, definition: &ProviderDescriptor) -> Result<(), ProvisioningError> {
        definition.only_parameters(&["path"])?;
        definition.required("path").map(drop)
    }
    #[rustfmt::skip]
    fn create(&self, definition: &ProviderDescriptor, _: &ProviderEnvironment) -> Result<Arc<dyn ClusterProvider>, ProvisioningError> {
        Ok(Arc::new(TextFile(definition.clone())))
    }
}

// The end of the provider. What follows uses it.

fn main() -> ExitCode {
    support::end(run().map_err(|error| error.to_string()))
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let console = Console::open(None)?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("members.txt");
    fs::write(&path, "alpha 10.0.0.1 7001\nbeta 10.0.0.2 7002\n")?;
    let definition = |id| ProviderDescriptor::new(id, TextFileFactory.kind());

    let builder = ClusterProvisioningService::builder()
        .factory(Arc::new(TextFileFactory))
        .provider(definition("list")?.parameter("path", path.display().to_string()));
    let mut events = builder.subscribe(100);
    console.say("Starting with alpha and beta:");
    let service = builder.start()?;
    service.wait_ready(Duration::from_secs(5))?;
    show(&console, &mut events);

    console.say("\nThe file gets a third line, and one that is no member:");
    fs::write(&path, "alpha 10.0.0.1 7001\nbeta 10.0.0.2 7002\ngamma 10.0.0.3 7003\ndelta has no port\n")?;
    show(&console, &mut events);
    console
        .say(format_args!("          lines skipped, over all readings: {}", service.hub().metrics().skipped_members));

    console.say("\nThe file is gone: an error, but no reason to forget the members:");
    fs::remove_file(&path)?;
    show(&console, &mut events);
    let snapshot = service.hub().snapshot().ok_or("there was a snapshot")?;
    let names: Vec<_> = snapshot.members.iter().map(|node| node.id().as_str()).collect();
    console.say(format_args!("          members: {}; placement {}", names.join(", "), service.hub().gate()));

    console.say("\nA definition without a path is refused before it can do harm:");
    console.say(format_args!("          {}", service.register(definition("other")?).expect_err("it lacks the path")));
    Ok(())
}

/// Prints what is delivered within half a second.
fn show(console: &Console, events: &mut EventStream<Arc<ProvisioningEvent>>) {
    std::thread::sleep(Duration::from_millis(500));
    while let Ok(event) = events.try_recv() {
        console.say(format_args!("{:>8}  {event}", format!("#{}", event.position().seq_no)));
    }
}
