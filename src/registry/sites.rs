//! Two providers that would overwrite each other's registration of the local node, without end.
//!
//! A backend holds one entry of the node at each place. Two definitions that name the same place and the same entry share
//! it; two that name the same place and different entries cannot both be kept registered.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::{ErrorCode, ProvisioningError};
use crate::id::ProviderId;
use crate::panics::caught;
use crate::provider::{ClusterProvider, RegistrationSite};
use crate::validator::ProviderValidator;

/// Refuses a set in which two enabled providers would overwrite each other's registration. In client mode nothing is
/// registered.
///
/// # Errors
/// [`ErrorCode::InvalidConfig`], naming both.
pub(super) fn check<'a>(
    validator: &ProviderValidator,
    enabled: impl IntoIterator<Item = (&'a ProviderId, &'a Arc<dyn ClusterProvider>)>,
    doing: &'static str,
) -> Result<(), ProvisioningError> {
    if validator.local_node().is_none() {
        return Ok(());
    }
    let mut places: BTreeMap<String, (RegistrationSite, &ProviderId)> = BTreeMap::new();
    for (id, provider) in enabled {
        // A provider is foreign code: one that panics here registers nowhere that is known.
        let Some(site) = caught(|| provider.registration_site()).unwrap_or_default() else { continue };
        match places.get(site.place()) {
            Some((other, first)) if other.entry() != site.entry() => {
                let reason = format!(
                    "it would register the local node as {:?} where provider {first} registers it as {:?}: each would \
                     overwrite the other",
                    site.entry(),
                    other.entry()
                );
                let error = ProvisioningError::new(ErrorCode::InvalidConfig, doing, reason).with_provider(id);
                return Err(error.with_advice("give both the same entry, or remove one of the two"));
            }
            Some(_) => {}
            None => _ = places.insert(site.place().to_owned(), (site, id)),
        }
    }
    Ok(())
}
