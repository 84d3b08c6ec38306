//! What is asked: the pages of a list, its watch, the probe, and the local node's pod.

use std::time::Duration;

use crate::http::encode;

/// The group of rights that EndpointSlices belong to.
const DISCOVERY: &str = "discovery.k8s.io";

/// What is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Select {
    /// The pods of a label selector.
    Pods { selector: String },
    /// The EndpointSlices of a service.
    Slices { service: String },
}

/// A kind of object, as rights name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resource {
    /// Empty: the core group.
    pub(super) group: &'static str,
    pub(super) name: &'static str,
}

/// Pods.
pub(super) const PODS: Resource = Resource { group: "", name: "pods" };
/// EndpointSlices.
pub(super) const SLICES: Resource = Resource { group: DISCOVERY, name: "endpointslices" };

impl Select {
    /// The objects that are watched.
    pub(super) fn resource(&self) -> Resource {
        match self {
            Select::Pods { .. } => PODS,
            Select::Slices { .. } => SLICES,
        }
    }
}

/// The queries of one namespace.
#[derive(Clone, Debug)]
pub(super) struct Query {
    namespace: String,
    select: Select,
    selector: String,
    page_size: u32,
}

impl Query {
    /// `namespace` and the service's name are fit for a path.
    pub(super) fn new(namespace: &str, select: &Select, page_size: u32) -> Self {
        let selector = match select {
            Select::Pods { selector } => encode(selector),
            Select::Slices { service } => encode(&format!("kubernetes.io/service-name={service}")),
        };
        Self { namespace: namespace.to_owned(), select: select.clone(), selector, page_size }
    }

    /// The namespace.
    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The collection that is watched, in that version of its group.
    fn collection(&self, slices: SliceVersion) -> String {
        match &self.select {
            Select::Pods { .. } => format!("/api/v1/namespaces/{}/pods", self.namespace),
            Select::Slices { .. } => {
                format!("/apis/{DISCOVERY}/{}/namespaces/{}/endpointslices", slices.as_str(), self.namespace)
            }
        }
    }

    /// A page of the list: the first, or the one that the page before named; or all of it in one piece. It names no
    /// version: then it is consistent, and a page's token says of which version it is.
    pub(super) fn list(&self, slices: SliceVersion, next: Option<&str>, paged: bool) -> String {
        let mut path = format!("{}?labelSelector={}", self.collection(slices), self.selector);
        if paged {
            path.push_str(&format!("&limit={}", self.page_size));
        }
        if let Some(next) = next {
            path.push_str(&format!("&continue={}", encode(next)));
        }
        path
    }

    /// A list of nothing, which costs next to nothing and shows the version that the server is at.
    pub(super) fn present(&self, slices: SliceVersion) -> String {
        format!("{}?fieldSelector=metadata.name%3D0", self.collection(slices))
    }

    /// A list of one, which shows whether it may be listed.
    pub(super) fn glance(&self, slices: SliceVersion) -> String {
        format!("{}?labelSelector={}&limit=1", self.collection(slices), self.selector)
    }

    /// What changes from that version on, until the server ends it after `timeout`.
    pub(super) fn watch(&self, slices: SliceVersion, resource_version: &str, timeout: Duration) -> String {
        format!(
            "{}?labelSelector={}&watch=1&allowWatchBookmarks=true&resourceVersion={}&timeoutSeconds={}",
            self.collection(slices),
            self.selector,
            encode(resource_version),
            timeout.as_secs().max(1)
        )
    }

    /// A pod of the namespace.
    pub(super) fn pod(&self, name: &str) -> String {
        format!("/api/v1/namespaces/{}/pods/{}", self.namespace, encode(name))
    }
}

/// The versions of EndpointSlice that servers have: `v1` since 1.21, `v1beta1` until 1.24.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum SliceVersion {
    /// What every server of today has.
    #[default]
    V1,
    /// What older ones have.
    V1Beta1,
}

impl SliceVersion {
    /// The other one.
    pub(super) fn other(self) -> Self {
        match self {
            SliceVersion::V1 => SliceVersion::V1Beta1,
            SliceVersion::V1Beta1 => SliceVersion::V1,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            SliceVersion::V1 => "v1",
            SliceVersion::V1Beta1 => "v1beta1",
        }
    }
}

/// Where the server says that it is alive, without any rights.
pub(super) const PROBE: &str = "/livez";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_queries_are_encoded() {
        let select = Select::Pods { selector: "a/b=c,d in (e, f)".into() };
        let query = Query::new("shop", &select, 500);
        let pods = "/api/v1/namespaces/shop/pods?labelSelector=a%2Fb%3Dc%2Cd%20in%20%28e%2C%20f%29";
        assert_eq!(query.list(SliceVersion::V1, None, true), format!("{pods}&limit=500"));
        let second = query.list(SliceVersion::V1, Some("x=&y"), true);
        assert_eq!(second, format!("{pods}&limit=500&continue=x%3D%26y"));
        assert_eq!(query.list(SliceVersion::V1, None, false), pods);
        assert_eq!(
            query.watch(SliceVersion::V1, "17", Duration::from_secs(300)),
            format!("{pods}&watch=1&allowWatchBookmarks=true&resourceVersion=17&timeoutSeconds=300")
        );
        let slices = Query::new("shop", &Select::Slices { service: "orders".into() }, 1);
        assert_eq!(
            slices.glance(SliceVersion::V1Beta1),
            "/apis/discovery.k8s.io/v1beta1/namespaces/shop/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dorders&limit=1"
        );
        assert_eq!(slices.pod("orders-0"), "/api/v1/namespaces/shop/pods/orders-0");
    }
}
