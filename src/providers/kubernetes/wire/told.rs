//! What was decoded, as text: for the crate's own tests and fuzz targets, which see none of the provider's types.

use std::sync::Arc;

use super::page::{page, page_within};
use super::rules::{Family, PodRules, Port, Rules, SliceRules};
use super::{Lines, failure};
use crate::error::ProvisioningError;
use crate::providers::kubernetes::directory::Directory;
use crate::providers::kubernetes::object::Line;

/// What is being done, for errors.
const DOING: &str = "decoding an answer";

/// Some rules: each bit of `choice` decides something.
fn rules(choice: u8) -> Rules {
    let is = |bit: u8| choice >> bit & 1 == 1;
    let family = match choice >> 1 & 3 {
        0 | 3 => Family::Any,
        1 => Family::Ipv4,
        _ => Family::Ipv6,
    };
    let port = match choice >> 3 & 3 {
        0 | 3 => None,
        1 => Some(Port::Named(String::from("cluster"))),
        _ => Some(Port::Number(9000)),
    };
    match is(0) {
        false => Rules::Pods(PodRules { family, port, ready: is(5), container: is(6).then(|| String::from("app")) }),
        true => Rules::Slices(SliceRules { family, port, not_ready: is(5) }),
    }
}

/// What a page says: its members, one to a line, how many objects there were and how many were skipped.
pub(crate) fn told_page(
    choice: u8,
    limit: usize,
    read: impl FnMut(&mut [u8]) -> Result<usize, ProvisioningError>,
) -> Result<(String, usize, usize), ProvisioningError> {
    let page = page_within(limit, &rules(choice), read, |_| (), DOING)?;
    let (count, mut directory) = (page.objects.len(), Directory::new());
    directory.begin();
    page.objects.into_iter().for_each(|object| directory.add(object));
    let members: Vec<_> = directory.finish().iter().map(|node| format!("{node:?}\n")).collect();
    Ok((format!("{}{} {:?}", members.concat(), page.resource_version, page.next), count, page.skipped))
}

/// The rules of pods that say everything themselves.
fn plain_pods() -> Rules {
    Rules::Pods(PodRules { ready: true, ..PodRules::default() })
}

/// How many objects a page of pods has.
pub(crate) fn told_objects(
    read: impl FnMut(&mut [u8]) -> Result<usize, ProvisioningError>,
) -> Result<usize, ProvisioningError> {
    Ok(page(&plain_pods(), read, DOING)?.objects.len())
}

/// How many objects a watch of pods shows.
pub(crate) fn told_upserts(
    mut read: impl FnMut(&mut [u8]) -> Result<usize, ProvisioningError>,
) -> Result<usize, ProvisioningError> {
    let (mut lines, mut upserts) = (Lines::new(Arc::new(plain_pods())), 0);
    while let Some(line) = lines.next(&mut read, DOING)? {
        upserts += usize::from(matches!(line, Line::Upsert(..)));
    }
    Ok(upserts)
}

/// What a watch says, event by event up to its end or error. After an error of `read` that is `passing` it goes on.
pub(crate) fn told_lines(
    choice: u8,
    limit: usize,
    mut read: impl FnMut(&mut [u8]) -> Result<usize, ProvisioningError>,
    passing: impl Fn(&ProvisioningError) -> bool,
) -> Vec<String> {
    let mut lines = Lines::with_limit(Arc::new(rules(choice)), limit);
    let (mut told, mut directory) = (Vec::new(), Directory::new());
    loop {
        match lines.next(&mut read, DOING) {
            Ok(Some(Line::Upsert(object, version))) => {
                told.push(format!("{object:?} {version} {:?}", directory.upsert(object.clone())));
            }
            Ok(Some(Line::Delete { name, uid, resource_version })) => {
                let changes = directory.delete(&name, uid.as_deref());
                told.push(format!("-{name} {uid:?} {resource_version} {changes:?}"));
            }
            Ok(Some(line)) => told.push(format!("{line:?}")),
            Ok(None) => return told,
            Err(error) if passing(&error) => {}
            Err(error) => {
                told.push(error.to_string());
                return told;
            }
        }
    }
}

/// What a refusal says.
pub(crate) fn told_failure(code: u16, body: &[u8]) -> String {
    format!("{:?}", failure(code, body, None, DOING))
}
