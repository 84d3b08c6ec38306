//! The live topology as a table: members with their channels and keys, providers with their health, and the gate.

use std::fmt::Write;

use cluster_provisioning::*;

use crate::screen::{Ink, Screen};
use crate::{LOCAL, Parts};

/// How long the longest bar is, at most.
const BAR: usize = 24;
/// What a line has beside its bar; and without the address, which narrow screens have no room for.
const BESIDE: usize = 48;
const BESIDE_WITHOUT_ADDRESS: usize = 32;

pub fn table(parts: &Parts, hub: &ProviderWatchHub, screen: &Screen) -> String {
    let mut text = String::new();
    _ = nodes(&mut text, parts, hub, screen).and_then(|()| providers(&mut text, parts, hub, screen));
    text.trim_end().to_owned()
}

fn nodes(text: &mut String, parts: &Parts, hub: &ProviderWatchHub, screen: &Screen) -> std::fmt::Result {
    let roomy = screen.width() > BESIDE + BAR / 2;
    let longest = BAR.min(screen.width().saturating_sub(if roomy { BESIDE } else { BESIDE_WITHOUT_ADDRESS }));
    let address = |text: &str| if roomy { format!("  {text:<14}") } else { String::new() };
    let head = format!("  {:<8} {:>4}{}  {:<8} {:>4}", "NODE", "LIFE", address("ADDRESS"), "CHANNEL", "KEYS");
    writeln!(text, "{}", screen.paint(Ink::Dim, &head))?;
    let (channels, owned) = (parts.remoting.channels(), parts.partitions.owned());
    let most = owned.values().copied().max().unwrap_or(1).max(1);
    let Some(snapshot) = hub.snapshot() else { return writeln!(text, "  (no snapshot yet)") };
    for node in snapshot.members.iter() {
        let id = node.id();
        let (channel, ink) = match channels.get(id) {
            _ if id.as_str() == LOCAL => ("(self)", Ink::Dim),
            Some(channel) if channel.blocked => ("blocked", Ink::Red),
            Some(_) => ("open", Ink::Green),
            None => ("none", Ink::Yellow),
        };
        let channel = screen.paint(ink, &format!("{channel:<8}"));
        let keys = owned.get(id).copied().unwrap_or_default();
        let bar = "█".repeat((keys * longest).div_ceil(most));
        let address = address(&format!("{}:{}", node.address(), node.port()));
        let (_, outdated) = parts.partitions.write_all(id);
        let note = if outdated > 0 { format!("{outdated} outdated leases, fenced") } else { String::new() };
        let line = format!("  {id:<8} {:>4}{address}  {channel} {keys:>4}  {bar}", node.incarnation());
        writeln!(text, "{line}{}", screen.paint(Ink::Yellow, &note))?;
    }
    writeln!(text)
}

fn providers(text: &mut String, parts: &Parts, hub: &ProviderWatchHub, screen: &Screen) -> std::fmt::Result {
    let head = format!("    {:<8} {:>4}  {:<11} {:>7}", "PROVIDER", "PRIO", "HEALTH", "MEMBERS");
    writeln!(text, "{}", screen.paint(Ink::Dim, &head))?;
    for status in hub.providers() {
        let mark = if status.active { "▶" } else { " " };
        let ink = match status.health {
            ProviderHealth::Healthy => Ink::Green,
            ProviderHealth::Degraded => Ink::Yellow,
            ProviderHealth::Unreachable => Ink::Red,
        };
        let health = screen.paint(ink, &format!("{:<11}", status.health));
        let members = status.members.map_or("-".to_owned(), |members| members.to_string());
        writeln!(text, "  {mark} {:<8} {:>4}  {health} {members:>7}", status.id, status.priority)?;
    }
    let owned: usize = parts.partitions.owned().values().sum();
    let gate = hub.gate();
    let ink = if gate.is_open() { Ink::Green } else { Ink::Yellow };
    let (opened, closed) = parts.remoting.counts();
    writeln!(text)?;
    let gate = screen.paint(ink, &gate.to_string());
    writeln!(text, "  placement {gate}")?;
    let counts = format!("{owned} keys owned; {opened} channels opened so far, {closed} closed");
    writeln!(text, "{}", screen.wrap(&counts, "  "))
}
