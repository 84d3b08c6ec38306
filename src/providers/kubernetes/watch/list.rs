//! The list's rules: its pages become one set, all at once or not at all.
//!
//! A page that fails ends the list, and another begins from the first page: nothing of it is seen by anyone. If pages
//! expire again and again before the last one is there, the list is asked for in one piece.

use std::time::Duration;

use super::{Failure, FailureKind, Machine, Output, Page, Phase};
use crate::clock::Timestamp;
use crate::error::{ErrorCode, ProvisioningError};
use crate::provider::ProviderEvent;
use crate::topology::Revision;

/// How much longer than another answer a page may take, beside connecting: the server itself gives up on a request after
/// 60 s.
pub(super) const GATHERING: Duration = Duration::from_secs(65);
/// So many lists may expire before one is asked for in one piece.
const EXPIRIES: u32 = 3;
/// A list of more pages has no end.
const PAGES_MAX: usize = 1000;

/// Whether lists are asked for page by page.
#[derive(Debug, Default)]
pub(super) struct Paging {
    /// How many lists expired since the last whole one.
    expiries: u32,
    /// A list had too many pages: with so many objects every other one would have, too.
    is_endless: bool,
}

impl Paging {
    fn is_paged(&self) -> bool {
        self.expiries < EXPIRIES && !self.is_endless
    }
}

/// A list under way.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) number: u64,
    /// When its present page was asked for.
    pub(super) since: Timestamp,
    /// The version of its first page, once that is there.
    version: Option<String>,
    pages: usize,
    skipped: usize,
}

impl Machine {
    /// Asks for the first page.
    pub(super) fn send_list(&mut self, now: Timestamp) {
        self.number += 1;
        self.gap = None;
        self.directory.begin();
        let (number, paged) = (self.number, self.paging.is_paged());
        self.outputs.push_back(Output::List { number, next: None, paged });
        self.phase = Phase::Listing(Listing { number, since: now, version: None, pages: 0, skipped: 0 });
    }

    pub(super) fn page_arrived(&mut self, now: Timestamp, result: Result<Page, Failure>) {
        let Phase::Listing(listing) = &mut self.phase else { return };
        let page = match result {
            Ok(page) => page,
            Err(failure) => return self.failed(now, failure),
        };
        listing.pages += 1;
        listing.skipped += page.skipped;
        // All pages are of one version. Should they not be, the earliest misses nothing.
        let version = listing.version.get_or_insert(page.resource_version).clone();
        let (pages, skipped) = (listing.pages, listing.skipped);
        for object in page.objects {
            self.directory.add(object);
        }
        match page.next {
            _ if version.is_empty() => self.failed(now, malformed("the list has no resource version")),
            Some(_) if pages >= PAGES_MAX => {
                self.paging.is_endless = true;
                self.failed(now, malformed("the list has no end"));
            }
            Some(next) => {
                self.number += 1;
                listing_goes_on(&mut self.phase, self.number, now);
                let (number, paged) = (self.number, self.paging.is_paged());
                self.outputs.push_back(Output::List { number, next: Some(next), paged });
            }
            None => self.listed(now, version, pages, skipped),
        }
    }

    /// The list is whole. It is consistent, and so it is believed, also where it is empty.
    fn listed(&mut self, now: Timestamp, version: String, pages: usize, skipped: usize) {
        self.stand_in = self.stand_in_after(now, pages);
        self.gap = self.settings.list_interval.map(|interval| now + self.jitter.scale(interval, 0.5));
        self.paging.expiries = 0;
        let before = self.directory.members();
        let members = self.directory.finish();
        (self.version, self.listed) = (Some(version.as_str().into()), true);
        self.phase = Phase::Due(now);
        self.sight(&members);
        if self.reported && skipped == 0 && members == before {
            return self.report(now, ProviderEvent::Heartbeat { current: true });
        }
        self.reported = true;
        self.report(now, ProviderEvent::Snapshot { members, revision: Revision::new(version), skipped });
    }

    /// The list under way comes to nothing, if there is one.
    pub(super) fn abandon_list(&mut self, kind: FailureKind) {
        if matches!(self.phase, Phase::Listing(_)) {
            self.directory.abandon();
            if kind == FailureKind::Gone {
                self.paging.expiries = self.paging.expiries.saturating_add(1);
            }
        }
    }
}

fn listing_goes_on(phase: &mut Phase, number: u64, now: Timestamp) {
    if let Phase::Listing(listing) = phase {
        (listing.number, listing.since) = (number, now);
    }
}

fn malformed(detail: &'static str) -> Failure {
    let error = ProvisioningError::new(ErrorCode::MalformedAnswer, "listing the members", detail);
    Failure { kind: FailureKind::Other, error, retry_after: None }
}
