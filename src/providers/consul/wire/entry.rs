//! What one entry of a health answer says.
//!
//! Decided here: which entries are members (those with at least one check, all of them passing; maintenance, critical
//! and warning are not), and how an entry becomes a node. An entry with a field of the wrong type is unusable, whatever
//! else it holds. Decoding borrows from the entry's bytes and builds nothing of what is not needed.
//!
//! Conventions, shared with protoactor-go: `Meta.id` is the node's id, without it `<service>@<address>:<port>`; tags
//! are kinds; an empty `Service.Address` means `Node.Address`. `Meta.incarnation` is the incarnation, 0 if it is
//! absent or no number. All other `Meta` entries are the node's metadata, since its owner registered them.

use std::borrow::Cow;

use serde::de::SeqAccess;

use crate::json::{self, Loose, Shape, Text, Unusable, fields};
use crate::topology::ClusterNode;

/// What an entry says.
pub(super) enum Entry {
    /// A member, and the index at which its entry was created, or 0 if that is not said.
    Member(ClusterNode, u64),
    /// An instance that does not pass its checks, or has none.
    NoMember,
    Unusable,
}

/// Reads the bytes of an entry.
///
/// # Errors
/// The offset in them at which they turn out to be no JSON value in UTF-8.
pub(super) fn read(bytes: &[u8], service: &str) -> Result<Entry, usize> {
    let parts: Loose<Parts<'_>> = json::read(bytes)?;
    Ok(match parts.good().map(|parts| parts.into_node(service)) {
        Some(Ok(Some((node, created)))) => Entry::Member(node, created),
        Some(Ok(None)) => Entry::NoMember,
        Some(Err(Unusable)) | None => Entry::Unusable,
    })
}

#[derive(Default)]
struct Parts<'de> {
    node: Loose<NodePart<'de>>,
    service: Loose<ServicePart<'de>>,
    checks: Loose<Checks>,
}

#[derive(Default)]
struct NodePart<'de> {
    address: Loose<Text<'de>>,
}

#[derive(Default)]
struct ServicePart<'de> {
    address: Loose<Text<'de>>,
    port: Loose<u64>,
    tags: Loose<Vec<Loose<Text<'de>>>>,
    meta: Loose<Vec<(Text<'de>, Loose<Text<'de>>)>>,
    created: Loose<u64>,
}

/// Whether there is at least one check, and what they amount to.
#[derive(Default)]
struct Checks {
    any: bool,
    all_passing: bool,
    malformed: bool,
}

impl Parts<'_> {
    /// The node and the index of its creation, or `None` if it is none of the members.
    fn into_node(self, service: &str) -> Result<Option<(ClusterNode, u64)>, Unusable> {
        let checks = self.checks.optional()?.unwrap_or_default();
        if checks.malformed {
            return Err(Unusable);
        }
        if !checks.any || !checks.all_passing {
            return Ok(None);
        }
        let part = self.service.optional()?.ok_or(Unusable)?;
        let address = match part.address.optional()? {
            Some(Text(address)) if !address.is_empty() => address,
            _ => {
                let node = self.node.optional()?.ok_or(Unusable)?;
                node.address.optional()?.ok_or(Unusable)?.0
            }
        };
        let address = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&address);
        let port = u16::try_from(part.port.optional()?.ok_or(Unusable)?).map_err(|_| Unusable)?;
        let (mut id, mut incarnation, mut metadata) = (None, 0, Vec::new());
        for (key, value) in part.meta.optional()?.unwrap_or_default() {
            let Text(value) = value.optional()?.ok_or(Unusable)?;
            match &*key.0 {
                "id" if !value.is_empty() => id = Some(value.into_owned()),
                "id" => {}
                "incarnation" => incarnation = value.parse().unwrap_or(0),
                _ => metadata.push((key.0.into_owned(), value.into_owned())),
            }
        }
        let id = id.unwrap_or_else(|| format!("{service}@{address}:{port}"));
        let mut builder = ClusterNode::builder(id, address, port).incarnation(incarnation);
        for tag in part.tags.optional()?.unwrap_or_default() {
            let Text(tag) = tag.optional()?.ok_or(Unusable)?;
            if !tag.is_empty() {
                builder = builder.kind(tag);
            }
        }
        for (key, value) in metadata {
            builder = builder.metadata(key, value);
        }
        let created = part.created.good().unwrap_or(0);
        builder.build().map(|node| Some((node, created))).map_err(|_| Unusable)
    }
}

fields!(Parts<'de>, "Node" => node, "Service" => service, "Checks" => checks);
fields!(NodePart<'de>, "Address" => address);
fields!(ServicePart<'de>, "Address" => address, "Port" => port, "Tags" => tags, "Meta" => meta,
    "CreateIndex" => created);
fields!(Check<'de>, "CheckID" => id, "Status" => status);

#[derive(Default)]
struct Check<'de> {
    id: Loose<Text<'de>>,
    status: Loose<Text<'de>>,
}

impl<'de> Shape<'de> for Checks {
    fn from_list<A: SeqAccess<'de>>(mut list: A) -> Result<Option<Self>, A::Error> {
        let mut checks = Checks { any: false, all_passing: true, malformed: false };
        while let Some(check) = list.next_element::<Loose<Check<'de>>>()? {
            checks.any = true;
            match check.good().map(|check| (check.id.optional(), check.status.optional())) {
                Some((Ok(id), Ok(status))) => {
                    let id = id.unwrap_or(Text(Cow::Borrowed(""))).0;
                    let maintenance = id == "_node_maintenance" || id.starts_with("_service_maintenance:");
                    // Whatever is neither critical nor warning nor known is not passing either.
                    let passing = !maintenance && status.is_some_and(|status| status.0 == "passing");
                    checks.all_passing &= passing;
                }
                _ => checks.malformed = true,
            }
        }
        Ok(Some(checks))
    }
}
