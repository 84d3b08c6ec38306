//! A page of a list: a map with the list's metadata and, anywhere in it, the objects, which are read one by one as they
//! arrive.

use serde::de::IgnoredAny;

use super::{Reading, Rules};
use crate::error::{ErrorCode, ProvisioningError};
use crate::json::{self, Body, Loose, MAX_ELEMENT, Next, Scanner, Text, fields};
use crate::providers::kubernetes::object::Page;

/// A list's metadata.
#[derive(Default)]
struct ListMeta<'de> {
    version: Loose<Text<'de>>,
    next: Loose<Text<'de>>,
}

fields!(ListMeta<'de>, "resourceVersion" => version, "continue" => next);

/// What a key's value is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Kind,
    Meta,
    Items,
    Other,
}

/// The page in a body that `read` gives piece by piece.
///
/// # Errors
/// [`ErrorCode::MalformedAnswer`] if the body is no list of the objects that are watched, or has no version, and those
/// of `read`.
pub(in crate::providers::kubernetes) fn page(
    rules: &Rules,
    read: impl FnMut(&mut [u8]) -> Result<usize, ProvisioningError>,
    doing: &str,
) -> Result<Page, ProvisioningError> {
    page_within(MAX_ELEMENT, rules, read, |_| (), doing)
}

/// The same; where the next page is, if there is one, is `told` as soon as it has been read, which is mostly before the
/// first object.
pub(in crate::providers::kubernetes) fn page_and_next(
    rules: &Rules,
    read: impl FnMut(&mut [u8]) -> Result<usize, ProvisioningError>,
    told: impl FnMut(&str),
    doing: &str,
) -> Result<Page, ProvisioningError> {
    page_within(MAX_ELEMENT, rules, read, told, doing)
}

/// The same with another limit for an object.
pub(in crate::providers::kubernetes) fn page_within(
    limit: usize,
    rules: &Rules,
    read: impl FnMut(&mut [u8]) -> Result<usize, ProvisioningError>,
    mut told: impl FnMut(&str),
    doing: &str,
) -> Result<Page, ProvisioningError> {
    let mut body = Body::new(Scanner::of_map(limit), read, doing, "list of objects");
    let mut page = Page { objects: Vec::new(), skipped: 0, resource_version: String::new(), next: None };
    let (mut role, mut has_items, mut is_list, mut is_usable) = (Role::Other, false, true, true);
    let refused = |what: &'static str| ProvisioningError::new(ErrorCode::MalformedAnswer, doing.to_owned(), what);
    loop {
        match body.next()? {
            Next::Key => {
                role =
                    body.element(|bytes| json::read::<String>(bytes).map(|key| Role::of(&key)))?.unwrap_or(Role::Other);
                if role == Role::Items && std::mem::replace(&mut has_items, true) {
                    return Err(refused("the answer has two lists of objects"));
                }
                body.expect_list(role == Role::Items);
            }
            Next::Value => {
                let known = body.element(|bytes| {
                    match role {
                        Role::Kind => {
                            let kind: Loose<Text<'_>> = json::read(bytes)?;
                            is_list = kind.as_str() == Some(rules.kind_of_list());
                        }
                        Role::Meta => {
                            let meta = json::read::<Loose<ListMeta<'_>>>(bytes)?.good().unwrap_or_default();
                            page.resource_version = meta.version.text().unwrap_or_default();
                            page.next = meta.next.text().filter(|next| !next.is_empty());
                            page.next.as_deref().into_iter().for_each(&mut told);
                        }
                        // An empty list may be written as `null`.
                        Role::Items => is_usable &= json::read::<Option<IgnoredAny>>(bytes)?.is_none(),
                        Role::Other => drop(json::read::<IgnoredAny>(bytes)?),
                    }
                    Ok(())
                })?;
                is_usable &= known.is_some() || role == Role::Other;
            }
            Next::Element => {
                let Reading { object, skipped, .. } =
                    body.element(|bytes| rules.item(bytes))?.unwrap_or_else(Reading::unusable);
                page.objects.extend(object);
                page.skipped += skipped;
            }
            Next::More | Next::End => break,
        }
    }
    if !is_list || !is_usable || !has_items {
        return Err(refused("the answer is no list of objects"));
    }
    if page.resource_version.is_empty() {
        return Err(refused("the answer is a list without a version"));
    }
    Ok(page)
}

impl Role {
    fn of(key: &str) -> Self {
        match key {
            "kind" => Role::Kind,
            "metadata" => Role::Meta,
            "items" => Role::Items,
            _ => Role::Other,
        }
    }
}
