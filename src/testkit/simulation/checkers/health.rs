//! The providers' health, and the lives of their streams.

use std::collections::BTreeMap;

use super::{Checker, Model, ensure};
use crate::event::ProvisioningEvent;
use crate::failover::SlotKey;
use crate::health::ProviderHealth;
use crate::hub::StreamCommand;
use crate::id::ProviderId;
use crate::testkit::simulation::shell::TracedTick;

use super::super::model::Stream;

/// The health published is what the rules say, silence included, and each change of it was delivered.
#[derive(Default)]
pub(super) struct ProviderHealths(BTreeMap<(SlotKey, ProviderId), ProviderHealth>);

impl Checker for ProviderHealths {
    fn name(&self) -> &'static str {
        "provider health"
    }

    fn check(&mut self, model: &Model, tick: &TracedTick) -> Result<(), String> {
        self.0.retain(|(key, _), _| model.slot(Some(*key)).is_some());
        for event in &tick.events {
            let ProvisioningEvent::HealthChanged(change) = event else { continue };
            let Some(slot) = model.slot_of(&change.provider_id) else {
                return Err(format!("{}: {} is not in force", change.position, change.provider_id));
            };
            let known = self.0.insert((slot.key, slot.id.clone()), change.to);
            ensure!(known == Some(change.from) || known.is_none(), "{}: from {}", change.position, change.from);
            ensure!(change.from != change.to, "{} changes nothing", change.position);
        }
        for (slot, status) in model.slots.iter().zip(&tick.state.providers) {
            let redefined = |key, generation| model.redefined.contains(&(key, generation));
            let closed = tick.streams.iter().any(|command| match *command {
                StreamCommand::Close { key, generation } => key == slot.key && !redefined(key, generation),
                StreamCommand::Open { .. } => false,
            });
            // A standby that is no longer to watch counts for nothing; one that was given up changes in the next tick.
            let expected = if closed && !ended(tick, &slot.id) { ProviderHealth::Unreachable } else { slot.health };
            ensure!(status.health == expected, "{} is {} instead of {expected}", slot.id, status.health);
            let told = *self.0.entry((slot.key, slot.id.clone())).or_insert(status.health);
            ensure!(told == status.health, "{} is {} and was told to be {told}", slot.id, status.health);
            ensure!(
                !slot.has_snapshot || closed || status.members == Some(slot.shown.len()),
                "{} shows {:?}",
                slot.id,
                status.members
            );
        }
        Ok(())
    }
}

fn ended(tick: &TracedTick, id: &ProviderId) -> bool {
    tick.events.iter().any(|event| matches!(event, ProvisioningEvent::StreamEnded(end) if end.provider_id == *id))
}

/// At most one stream of each provider is open; none is opened before its pause is over, nor later; a silent one is given
/// up.
pub(super) struct Streams;

impl Checker for Streams {
    fn name(&self) -> &'static str {
        "streams"
    }

    fn check(&mut self, model: &Model, tick: &TracedTick) -> Result<(), String> {
        let (mut touched, mut closed) = (Vec::new(), Vec::new());
        for command in &tick.streams {
            let (StreamCommand::Open { key, .. } | StreamCommand::Close { key, .. }) = *command;
            // One that is defined anew is closed for another, which may be opened in the same tick.
            if let StreamCommand::Close { generation, .. } = *command
                && model.redefined.contains(&(key, generation))
            {
                closed.push((key, generation));
                continue;
            }
            ensure!(!touched.contains(&key), "two orders for the stream of provider {key}");
            touched.push(key);
            let slot = model.slots.iter().chain(&model.removed).find(|slot| slot.key == key);
            let Some(slot) = slot else { return Err(format!("{command:?} is for nobody")) };
            match (*command, slot.stream) {
                (StreamCommand::Open { .. }, Stream::Idle { since, pause }) => {
                    let waited = tick.at.since(since);
                    ensure!(waited * 2 >= pause, "{} is opened after {waited:?} of {pause:?}", slot.id);
                }
                (StreamCommand::Close { generation, .. }, Stream::Open { generation: open, .. }) => {
                    ensure!(generation == open, "{command:?} while {open} is open");
                }
                (StreamCommand::Close { generation, .. }, _) if model.given_up.contains(&key) => {
                    ensure!(generation == slot.generation, "{command:?} while {} is open", slot.generation);
                }
                (_, stream) => return Err(format!("{command:?} while {stream:?}")),
            }
        }
        ensure!(
            closed == model.redefined,
            "closed {closed:?} instead of {:?}, which were defined anew",
            model.redefined
        );
        for slot in model.slots.iter().filter(|slot| !touched.contains(&slot.key)) {
            ensure!(!model.given_up.contains(&slot.key), "{} is silent and not given up", slot.id);
            if let Stream::Idle { since, pause } = slot.stream {
                let needed = model.is_hot() || model.followed_after(tick).is_some_and(|active| active.key == slot.key);
                ensure!(
                    !needed || tick.at.since(since) < pause.max(std::time::Duration::from_nanos(1)),
                    "{} is not opened again after {pause:?}",
                    slot.id
                );
            }
        }
        for slot in &model.removed {
            let open = matches!(slot.stream, Stream::Open { .. });
            ensure!(!open || touched.contains(&slot.key), "{} was removed, and its stream stays", slot.id);
        }
        Ok(())
    }
}

/// When a stream ends or is given up, that is told once, with the hash of the provider's last snapshot; what the provider
/// followed had shown by then was delivered before, and not dropped with the stream.
pub(super) struct EndSignals;

impl Checker for EndSignals {
    fn name(&self) -> &'static str {
        "end signals"
    }

    fn check(&mut self, model: &Model, tick: &TracedTick) -> Result<(), String> {
        let mut terminated = model.terminated;
        let mut delivered = model.delivered.as_ref().map(|snapshot| snapshot.hash);
        for event in &tick.events {
            if let ProvisioningEvent::Snapshot(delivery) = event {
                delivered = Some(delivery.snapshot.hash);
            }
            let ProvisioningEvent::StreamEnded(end) = event else { continue };
            let Some(slot) = model.slot_of(&end.provider_id) else { continue };
            let given_up = model.given_up.contains(&slot.key);
            let expected = terminated.take_if(|key| *key == slot.key).is_some() || given_up;
            ensure!(expected, "{}: the stream of {} did not end", end.position, slot.id);
            let hash = match delivered {
                Some(delivered) if end.was_active => Some(delivered),
                _ => model.end_hashes.get(&slot.key).copied().filter(|_| slot.has_snapshot),
            };
            ensure!(end.snapshot_hash == hash, "{}: hash {:x?} instead of {hash:x?}", end.position, end.snapshot_hash);
            ensure!(end.was_active == (model.followed == Some(slot.key)), "{}: wrong about being active", end.position);
            let holds = model.draining || model.policy().mass_loss_share.is_some();
            if end.was_active && !holds {
                let shown = model.end_hashes.get(&slot.key).copied();
                ensure!(delivered == shown, "{}: what {} showed last is dropped", end.position, slot.id);
            }
        }
        ensure!(terminated.is_none(), "the end of a stream was not told");
        Ok(())
    }
}
