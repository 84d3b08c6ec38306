//! Who else of this process registers the same node with the same backend.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What the providers of this process register, and where. A definition that is replaced by
/// another for the same backend must not deregister what the other has registered already.
static TENANTS: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());

/// One provider's share in a registration.
#[derive(Debug)]
pub(in crate::providers) struct Tenancy(Arc<Tenant>);

#[derive(Debug)]
struct Tenant(String);

impl Tenancy {
    /// A provider's share in what `key` names: the kind, where it registers and whom.
    pub(in crate::providers) fn new(key: String) -> Self {
        *TENANTS.lock().unwrap_or_else(PoisonError::into_inner).entry(key.clone()).or_default() += 1;
        Self(Arc::new(Tenant(key)))
    }

    /// Whether another provider has a share too.
    pub(in crate::providers) fn is_shared(&self) -> bool {
        TENANTS.lock().unwrap_or_else(PoisonError::into_inner).get(&self.0.0).is_some_and(|count| *count > 1)
    }
}

/// The same provider's share.
impl Clone for Tenancy {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        let mut tenants = TENANTS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = tenants.get_mut(&self.0) {
            *count -= 1;
            if *count == 0 {
                tenants.remove(&self.0);
            }
        }
    }
}
