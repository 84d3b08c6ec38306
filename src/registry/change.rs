//! How two definitions and two sets of providers differ. Pure.

use crate::id::ProviderId;
use crate::provider::{Credential, ProviderDescriptor};

use super::ProviderEntry;
use crate::validator::has_credentials;

/// The longest value that a difference shows, in characters.
const MAX_SHOWN: usize = 200;

/// What the one who runs the providers has to do so that the new set is in force. Concerns enabled providers only:
/// disabled ones are never run.
#[derive(Clone, Debug, Default)]
pub struct RegistryChange {
    /// To be stopped, before the added ones are started.
    pub removed: Vec<ProviderId>,
    /// To be started.
    pub added: Vec<ProviderEntry>,
    /// Defined anew under their names: what runs them takes the place of what ran them before, without anybody noticing.
    pub edited: Vec<ProviderEntry>,
    /// Whose priority changed, with the new priority: their streams go on. They are among the kept as well.
    pub reprioritised: Vec<(ProviderId, i64)>,
    /// To go on as they are, apart from a new priority or role.
    pub kept: Vec<ProviderId>,
    /// New in the set, or newly defined, but not enabled: the reason is in their status.
    pub disabled: Vec<ProviderEntry>,
    /// New in the set, but not accepted yet: the reason is in their status.
    pub pending: Vec<ProviderEntry>,
    /// All enabled providers in the order of registration, which decides between equal priorities.
    pub order: Vec<ProviderId>,
}

impl RegistryChange {
    /// What leads from one set of entries to another.
    pub(super) fn between(old: &[ProviderEntry], new: &[ProviderEntry]) -> RegistryChange {
        let mut change = RegistryChange::default();
        for entry in new {
            let id = &entry.descriptor.id;
            let before = old.iter().find(|before| before.descriptor.id == *id);
            let same = before.filter(|before| make_the_same(&before.descriptor, &entry.descriptor));
            match (entry.is_enabled(), same) {
                (true, Some(before)) if before.is_pending() => change.added.push(entry.clone()),
                (true, Some(before)) => {
                    if before.descriptor.priority != entry.descriptor.priority {
                        change.reprioritised.push((id.clone(), entry.descriptor.priority));
                    }
                    change.kept.push(id.clone());
                }
                (true, None) if before.is_some_and(ProviderEntry::is_enabled) => change.edited.push(entry.clone()),
                (true, None) => change.added.push(entry.clone()),
                (false, Some(_)) => {}
                (false, None) if entry.is_pending() => change.pending.push(entry.clone()),
                (false, None) => change.disabled.push(entry.clone()),
            }
        }
        change.order = new.iter().filter(|entry| entry.is_enabled()).map(|entry| entry.descriptor.id.clone()).collect();
        let ran = old.iter().filter(|entry| entry.is_enabled()).map(|entry| &entry.descriptor.id);
        change.removed = ran.filter(|id| !change.order.contains(id)).cloned().collect();
        change
    }
}

/// Whether the definitions make the same provider, though it may be ranked or regarded in another way.
pub(super) fn make_the_same(one: &ProviderDescriptor, other: &ProviderDescriptor) -> bool {
    let ProviderDescriptor { id, kind, priority: _, role: _, endpoints, credential, parameters } = one;
    *id == other.id
        && *kind == other.kind
        && *endpoints == other.endpoints
        && *credential == other.credential
        && *parameters == other.parameters
}

/// In which fields `given` differs from `stored`, one line each; empty if they are equal.
pub(super) fn differences(stored: &ProviderDescriptor, given: &ProviderDescriptor) -> Vec<String> {
    // Taken apart, so that a new field cannot be forgotten here.
    let ProviderDescriptor { id: _, kind, priority, role, endpoints, credential, parameters } = stored;
    let mut found = Vec::new();
    let mut note = |field: &str, differs: bool, stored: String, given: String| {
        if differs {
            found.push(format!("{field}: {} in force, {} given", bounded(&stored), bounded(&given)));
        }
    };
    note("kind", *kind != given.kind, kind.to_string(), given.kind.to_string());
    note("priority", *priority != given.priority, priority.to_string(), given.priority.to_string());
    note("role", *role != given.role, role.to_string(), given.role.to_string());
    note("endpoints", *endpoints != given.endpoints, shown(endpoints), shown(&given.endpoints));
    note("credential", *credential != given.credential, source(credential), source(&given.credential));
    let mut names: Vec<_> = parameters.keys().chain(given.parameters.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let (stored, given) = (parameters.get(name), given.parameters.get(name));
        let value = |of: Option<&String>| of.map_or("none".to_owned(), |value| format!("{value:?}"));
        note(&bounded(name), stored != given, value(stored), value(given));
    }
    found
}

/// The endpoints without passwords: what is compared need not have been validated.
fn shown(endpoints: &[String]) -> String {
    let shown = |endpoint: &String| if has_credentials(endpoint) { "***".to_owned() } else { format!("{endpoint:?}") };
    let shown: Vec<_> = endpoints.iter().map(shown).collect();
    format!("[{}]", shown.join(", "))
}

fn bounded(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

fn source(credential: &Credential) -> String {
    match credential {
        Credential::None => "none".to_owned(),
        Credential::TokenFile(path) => format!("token file {path:?}"),
        Credential::TokenEnv(variable) => format!("environment variable {variable:?}"),
        Credential::Secret(name) => format!("secret {name:?}"),
    }
}
