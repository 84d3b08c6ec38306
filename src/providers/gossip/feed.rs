//! What a gossip member tells becomes what streams report: the topology as changes, and what is amiss as an error, once,
//! until it is over.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::event::{GossipEvent, in_words};
use crate::clock::Timestamp;
use crate::error::{ErrorCode, ProvisioningError};
use crate::event::Publisher;
use crate::id::ProviderId;
use crate::membership::transport::{Host, Reason};
use crate::membership::{Event, MemberState, Place, Refusal, Sentence, TopologyUpdate};
use crate::provider::{Exclusion, Exclusions, LocalNode, MemberChange, ProviderEvent};
use crate::sync::{Condvar, Mutex, deadline, lock, wait_until};
use crate::text::line::log_line;
use crate::topology::{Members, NodeId, Revision};

/// How many reports may wait for a stream to take them.
const QUEUE: usize = 256;
/// How often the same is logged at the most, of what strangers can bring about.
const LOGGED_EVERY: Duration = Duration::from_secs(30);
/// How many kinds of trouble are told apart for that.
const TOLD_APART: usize = 64;

pub(super) const WATCHING: &str = "watching a gossip cluster";
pub(super) const JOINING: &str = "joining a gossip cluster";

/// See the module.
pub(super) struct Feed {
    provider: ProviderId,
    state: Mutex<State>,
    changed: Condvar,
    events: Publisher<GossipEvent>,
    local: LocalNode,
    exclusions: Exclusions,
}

#[derive(Default)]
struct State {
    /// Whom the member has found dead and not seen come back, until its quarantine is over.
    quarantined: BTreeMap<NodeId, Quarantine>,
    /// As they were announced last; absent before the first time.
    members: Option<Members>,
    standing: Standing,
    /// What is amiss, of a member.
    trouble: Option<ProvisioningError>,
    /// What was heard last while nobody let this node in.
    hint: Option<ProvisioningError>,
    streams: BTreeMap<u64, Outlet>,
    count: u64,
    logged: BTreeMap<String, Instant>,
}

/// How long somebody is out.
#[derive(Clone, Copy, Debug)]
struct Quarantine {
    until: Timestamp,
    /// The hub has been told, with the update that the node was missing from.
    is_told: bool,
}

/// Where the local node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Standing {
    /// It asks to be let in, or for the view.
    #[default]
    Outside,
    Inside,
    /// It has ended.
    Ended,
}

struct Outlet {
    reports: Sender<ProviderEvent>,
    /// It has not been told all, and is told everything next.
    is_behind: bool,
}

impl Outlet {
    /// Whether it was taken.
    fn tell(&mut self, event: ProviderEvent) -> bool {
        match self.reports.try_send(event) {
            // Whoever has gone has nothing to miss.
            Ok(()) | Err(TrySendError::Disconnected(_)) => true,
            Err(TrySendError::Full(_)) => false,
        }
    }
}

impl State {
    /// The trouble is that from now on, and streams are told; `None`: it is over.
    fn set_trouble(&mut self, trouble: Option<ProvisioningError>) {
        let event = match (&trouble, self.trouble.is_some()) {
            (Some(error), _) => ProviderEvent::Degraded { error: error.clone() },
            // Nothing has changed, and that is certain again.
            (None, true) => ProviderEvent::changes(Vec::new(), Revision::NONE),
            (None, false) => return,
        };
        self.trouble = trouble;
        let has_members = self.members.is_some();
        for outlet in self.streams.values_mut() {
            if has_members || matches!(event, ProviderEvent::Degraded { .. }) {
                // A stream that is full has other things to tell first, and tells by its signs of life what is current.
                _ = outlet.tell(event.clone());
            }
        }
    }

    /// Whether that has not been logged for a while.
    fn may_log(&mut self, what: &str) -> bool {
        let now = Instant::now();
        if self.logged.len() >= TOLD_APART {
            self.logged.retain(|_, at| now.saturating_duration_since(*at) < LOGGED_EVERY);
        }
        if self.logged.get(what).is_some_and(|at| now.saturating_duration_since(*at) < LOGGED_EVERY)
            || self.logged.len() >= TOLD_APART
        {
            return false;
        }
        self.logged.insert(what.to_owned(), now);
        true
    }
}

impl Feed {
    pub(super) fn new(provider: ProviderId, local: LocalNode, exclusions: Exclusions) -> Arc<Self> {
        let (state, changed) = (Mutex::new(State::default()), Condvar::new());
        Arc::new(Self { provider, state, changed, events: Publisher::new(), local, exclusions })
    }

    /// What happens is published here.
    pub(super) fn events(&self) -> &Publisher<GossipEvent> {
        &self.events
    }

    /// The reports of a stream that is opened now, and its number. What is known is the first of them.
    pub(super) fn open(&self) -> (u64, Receiver<ProviderEvent>) {
        let (reports, taken) = bounded(QUEUE);
        let mut state = lock(&self.state);
        state.count += 1;
        let number = state.count;
        let mut outlet = Outlet { reports, is_behind: state.members.is_none() };
        if let Some(members) = state.members.clone().filter(|_| state.standing != Standing::Ended) {
            _ = outlet.tell(ProviderEvent::snapshot(members, Revision::NONE));
        }
        if let Some(error) = state.trouble.clone() {
            _ = outlet.tell(ProviderEvent::Degraded { error });
        }
        state.streams.insert(number, outlet);
        (number, taken)
    }

    pub(super) fn close(&self, number: u64) {
        lock(&self.state).streams.remove(&number);
    }

    /// Whether a stream is open.
    pub(super) fn is_watched(&self) -> bool {
        !lock(&self.state).streams.is_empty()
    }

    /// The sign of life that is due.
    pub(super) fn sign_of_life(&self) -> ProviderEvent {
        let state = lock(&self.state);
        let is_current = state.standing == Standing::Inside && state.trouble.is_none() && state.members.is_some();
        ProviderEvent::Heartbeat { current: is_current }
    }

    /// A node begins: what it tells is all that counts.
    pub(super) fn begins(&self) {
        let mut state = lock(&self.state);
        (state.standing, state.hint, state.members) = (Standing::Outside, None, None);
        state.streams.values_mut().for_each(|outlet| outlet.is_behind = true);
        state.set_trouble(None);
    }

    /// The members as they were announced last; none before the first time, and after the end.
    pub(super) fn members(&self) -> Members {
        let state = lock(&self.state);
        let members = state.members.clone().filter(|_| state.standing != Standing::Ended);
        members.unwrap_or_default()
    }

    /// The node has ended.
    pub(super) fn ends(&self) {
        self.stands(Standing::Ended);
    }

    /// Waits until the node is inside or has ended, for so long; where it stands, and why it is not inside.
    pub(super) fn wait_inside(&self, within: Duration) -> (Standing, Option<ProvisioningError>) {
        let ends = deadline(within);
        let mut state = lock(&self.state);
        let mut goes_on = true;
        while state.standing == Standing::Outside && goes_on {
            (state, goes_on) = wait_until(&self.changed, state, ends);
        }
        (state.standing, state.trouble.clone().or_else(|| state.hint.clone()))
    }

    /// Where the node stands, and what is amiss.
    pub(super) fn standing(&self) -> (Standing, Option<ProvisioningError>) {
        let state = lock(&self.state);
        (state.standing, state.trouble.clone().or_else(|| state.hint.clone()))
    }

    fn stands(&self, standing: Standing) {
        lock(&self.state).standing = standing;
        self.changed.notify_all();
    }

    fn error(&self, code: ErrorCode, doing: &'static str, detail: impl Into<String>) -> ProvisioningError {
        ProvisioningError::new(code, doing, detail.into()).with_provider(&self.provider)
    }

    /// Something keeps this node out, or may do so.
    fn hint(&self, error: ProvisioningError) {
        let mut state = lock(&self.state);
        if state.may_log(error.detail()) {
            log_line!(Warn, "{error}");
        }
        if state.standing == Standing::Outside {
            state.hint = Some(error);
        }
    }

    fn apply(&self, update: &TopologyUpdate) -> Result<(), String> {
        self.exclude(update);
        let came = update.joined.iter().chain(&update.updated).cloned().map(MemberChange::Upsert);
        let gone = update.left.iter().chain(&update.dead).filter(|node| !update.members.contains(node.id()));
        let changes: Vec<MemberChange> = gone.map(|node| MemberChange::Remove(node.id().clone())).chain(came).collect();
        let mut state = lock(&self.state);
        state.members = Some(update.members.clone());
        let revision = Revision::new(update.number.to_string());
        let mut full = 0;
        for outlet in state.streams.values_mut() {
            let event = match outlet.is_behind {
                true => ProviderEvent::snapshot(update.members.clone(), revision.clone()),
                false => ProviderEvent::changes(changes.clone(), revision.clone()),
            };
            outlet.is_behind = !outlet.tell(event);
            full += usize::from(outlet.is_behind);
        }
        match full {
            0 => Ok(()),
            full => Err(format!("{full} of {} streams do not take what is reported", state.streams.len())),
        }
    }

    /// Whoever is dead in the update is out of the hub's topology from now on, and not before: deaths are settled together,
    /// and until then one may be contradicted. The hub hears of it before the change itself, which it might wait with.
    fn exclude(&self, update: &TopologyUpdate) {
        for node in &update.dead {
            let until = match lock(&self.state).quarantined.get_mut(node.id()) {
                Some(quarantine) if !quarantine.is_told => {
                    quarantine.is_told = true;
                    quarantine.until
                }
                _ => continue,
            };
            let reason = format!("the gossip provider {} has found that it does not answer", self.provider);
            let lasting = until.since(update.at);
            self.exclusions.tell(Exclusion::Begins { node: node.id().clone(), reason, lasting });
        }
    }

    fn tell(&self, event: Event) {
        match &event {
            Event::Joined { .. } => {
                {
                    let mut state = lock(&self.state);
                    state.hint = None;
                    state.set_trouble(None);
                }
                self.stands(Standing::Inside);
            }
            Event::Reached { .. } => lock(&self.state).set_trouble(None),
            Event::Isolated { .. } => {
                let detail = "this node hears from no other member; the topology stays as it is";
                let error = self.error(ErrorCode::Isolated, WATCHING, detail);
                lock(&self.state).set_trouble(Some(error));
            }
            Event::Expelled { until, .. } => {
                let detail = format!("others have declared this node dead, and let it in again at {until}");
                let error = self.error(ErrorCode::AdmissionRefused, WATCHING, detail);
                lock(&self.state).set_trouble(Some(error));
                self.stands(Standing::Outside);
            }
            Event::Quarantined { at, node, until } => {
                let quarantined = &mut lock(&self.state).quarantined;
                quarantined.retain(|_, quarantine| quarantine.until > *at);
                // One that the hub knows of is as long as it was.
                let begins = Quarantine { until: *until, is_told: false };
                quarantined.entry(node.clone()).and_modify(|known| known.until = *until).or_insert(begins);
            }
            Event::Transition { node, to: MemberState::Up, .. } => self.readmit(node.id()),
            Event::Ruled { node, sentence: Sentence::LetIn { .. }, .. } => self.readmit(node),
            // It has to ask anew, and is the same everywhere.
            Event::Succeeded { incarnation, .. } => {
                self.stands(Standing::Outside);
                self.local.raise(*incarnation);
            }
            Event::Refused { refusal, .. } => {
                let code = match refusal {
                    Refusal::IdTaken { .. } => ErrorCode::NodeIdTaken,
                    _ => ErrorCode::AdmissionRefused,
                };
                self.hint(self.error(code, JOINING, format!("this node is not let in: {}", in_words(refusal))));
            }
            Event::IdTaken { place, .. } => {
                let detail = format!("another process answers under this node's id at {place}");
                let error = self.error(ErrorCode::NodeIdTaken, WATCHING, detail);
                log_line!(Error, "{error}");
                lock(&self.state).set_trouble(Some(error));
            }
            Event::Unusable { from, why } => {
                let from = from.as_ref().map_or_else(|| "whom this node asks".to_owned(), ToString::to_string);
                let host = from.rsplit_once(':').map_or(from.as_str(), |(host, _)| host);
                let detail = format!("messages from {host} are not taken: {why}");
                let may_log = lock(&self.state).may_log(&detail);
                if may_log {
                    log_line!(Warn, "the gossip provider {}: {detail}", self.provider);
                }
            }
            Event::OneChannel { node, place, .. } => {
                let detail = format!(
                    "{node} speaks to this node by TCP, and answers nothing by UDP at {place}: let UDP pass, or correct its \
                     address or advertise-port"
                );
                let may_log = lock(&self.state).may_log(&detail);
                if may_log {
                    log_line!(Warn, "the gossip provider {}: {detail}", self.provider);
                }
            }
            Event::Left { .. } => self.stands(Standing::Ended),
            _ => {}
        }
        if self.events.has_subscribers() {
            self.events.publish(GossipEvent::of(event));
        }
    }

    /// The node is a member again, or may be.
    fn readmit(&self, node: &NodeId) {
        let was_told = lock(&self.state).quarantined.remove(node).is_some_and(|quarantine| quarantine.is_told);
        if was_told {
            self.exclusions.tell(Exclusion::Ends { node: node.clone() });
        }
    }

    fn follows(&self, member: Option<Place>) {
        let inside = member.is_some();
        {
            let mut state = lock(&self.state);
            if inside {
                state.hint = None;
                state.set_trouble(None);
            } else {
                let detail = "no member of the cluster answers; the topology stays as it is";
                let error = self.error(ErrorCode::BackendUnavailable, WATCHING, detail);
                state.set_trouble(Some(error));
            }
        }
        self.stands(if inside { Standing::Inside } else { Standing::Outside });
    }
}

/// The feed as the node's thread tells it.
pub(super) struct Teller(pub(super) Arc<Feed>);

impl Host for Teller {
    fn apply(&mut self, update: &TopologyUpdate) -> Result<(), String> {
        self.0.apply(update)
    }

    fn tell(&mut self, event: Event) {
        self.0.tell(event);
    }

    fn refused_by(&mut self, by: SocketAddr, reason: Reason) {
        let code = match reason {
            Reason::Busy => ErrorCode::BackendUnavailable,
            _ => ErrorCode::AccessDenied,
        };
        let detail = format!("{by} does not take what this node asks: {reason}");
        let error = self.0.error(code, JOINING, detail);
        self.0.hint(match reason {
            Reason::OtherCluster => error.with_advice("give all members one label, or correct the seed"),
            Reason::Sealed | Reason::NotSealed | Reason::NoSuchKey => {
                error.with_advice("give all members the same keys")
            }
            Reason::OtherVersion => error.with_advice("upgrade the older of the two"),
            Reason::Busy | Reason::Other(_) => error,
        });
    }

    fn follows(&mut self, member: Option<Place>) {
        self.0.follows(member);
    }

    fn not_found(&mut self, host: &str, why: &str) {
        let detail = format!("the address of {host} is not known: {why}");
        self.0.hint(self.0.error(ErrorCode::BackendUnavailable, JOINING, detail));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::ClusterNode;

    fn node(name: &str) -> Arc<ClusterNode> {
        Arc::new(ClusterNode::builder(name, "10.0.0.1", 7).build().unwrap())
    }

    fn id(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + seconds * 1000)
    }

    fn feed() -> Arc<Feed> {
        Feed::new(ProviderId::of("g"), LocalNode::default(), Exclusions::default())
    }

    /// The update to these members, of which the last one came and that one has died.
    fn update(number: u64, names: &[&str], died: Option<&str>) -> TopologyUpdate {
        let mut members = Members::new();
        names.iter().for_each(|name| _ = members.insert(node(name)));
        let joined = names.last().map(|name| node(name)).into_iter().filter(|_| died.is_none()).collect();
        let dead = died.map(node).into_iter().collect();
        TopologyUpdate { number, at: at(0), joined, updated: vec![], left: vec![], dead, members }
    }

    fn shown(event: ProviderEvent) -> String {
        let names = |members: &Members| members.iter().map(|node| node.id().to_string()).collect::<Vec<_>>().join(" ");
        match event {
            ProviderEvent::Snapshot { members, .. } => format!("whole: {}", names(&members)),
            ProviderEvent::Changes { changes, .. } => {
                let change = |change: &MemberChange| match change {
                    MemberChange::Upsert(node) => format!("+{}", node.id()),
                    MemberChange::Remove(id) => format!("-{id}"),
                };
                format!("changes: {}", changes.iter().map(change).collect::<Vec<_>>().join(" "))
            }
            ProviderEvent::Heartbeat { current } => format!("alive, current {current}"),
            ProviderEvent::Degraded { error } => error.code().to_string(),
            other => format!("{other:?}"),
        }
    }

    fn told(stream: &Receiver<ProviderEvent>) -> Vec<String> {
        stream.try_iter().map(shown).collect()
    }

    #[test]
    fn m4_5_a_stream_begins_with_all_members_and_goes_on_with_what_changes() {
        let feed = feed();
        let (_, first) = feed.open();
        assert_eq!((told(&first), shown(feed.sign_of_life())), (vec![], "alive, current false".to_owned()));
        feed.tell(Event::Joined { at: at(0) });
        feed.apply(&update(1, &["a"], None)).unwrap();
        feed.apply(&update(2, &["a", "b"], None)).unwrap();
        let (number, second) = feed.open();
        feed.apply(&update(3, &["a"], Some("b"))).unwrap();
        assert_eq!(told(&first), ["whole: a", "changes: +b", "changes: -b"]);
        assert_eq!(told(&second), ["whole: a b", "changes: -b"]);
        assert_eq!(shown(feed.sign_of_life()), "alive, current true");
        feed.close(number);
        feed.apply(&update(4, &["a", "c"], None)).unwrap();
        assert_eq!((told(&second).len(), told(&first)), (0, vec!["changes: +c".to_owned()]));
        assert_eq!(feed.members().len(), 2);
        feed.ends();
        assert!(feed.members().is_empty() && told(&feed.open().1).is_empty());
    }

    #[test]
    fn m4_4_a_stream_that_takes_nothing_is_a_failure_and_is_told_everything_when_it_does_again() {
        let feed = feed();
        let (_, stream) = feed.open();
        let failed = (1..).find_map(|number| feed.apply(&update(number, &["a"], None)).err().map(|why| (number, why)));
        let (number, why) = failed.unwrap();
        assert_eq!((number, why.as_str()), (QUEUE as u64 + 1, "1 of 1 streams do not take what is reported"));
        assert_eq!(told(&stream).len(), QUEUE);
        feed.apply(&update(number, &["a", "b"], None)).unwrap();
        assert_eq!(told(&stream), ["whole: a b"]);
    }

    #[test]
    fn m3_1_what_is_amiss_is_an_error_once_until_it_is_over_and_the_members_stay() {
        let feed = feed();
        let (_, stream) = feed.open();
        feed.tell(Event::Joined { at: at(0) });
        feed.apply(&update(1, &["a", "b", "c"], None)).unwrap();
        feed.tell(Event::Isolated { at: at(1) });
        let life = shown(feed.sign_of_life());
        let (_, late) = feed.open();
        feed.tell(Event::Reached { at: at(2) });
        feed.tell(Event::Reached { at: at(2) });
        assert_eq!(told(&stream), ["whole: a b c".to_owned(), "isolated".into(), "changes: ".into()][..]);
        assert_eq!(told(&late), ["whole: a b c".to_owned(), "isolated".into(), "changes: ".into()][..]);
        assert_eq!((life, shown(feed.sign_of_life())), ("alive, current false".into(), "alive, current true".into()));
        feed.tell(Event::Expelled { at: at(3), until: at(13) });
        assert_eq!((told(&stream), feed.standing().0), (vec!["admission-refused".to_owned()], Standing::Outside));
        feed.tell(Event::Joined { at: at(13) });
        assert_eq!((told(&stream), feed.standing().0), (vec!["changes: ".to_owned()], Standing::Inside));
    }

    #[test]
    fn m3_3_why_a_node_is_not_let_in_is_known_until_it_is() {
        let feed = feed();
        let why = |feed: &Feed| feed.wait_inside(Duration::ZERO).1.map(|error| error.code());
        assert_eq!(why(&feed), None);
        let mut teller = Teller(Arc::clone(&feed));
        teller.not_found("seed.example", "no such host");
        assert_eq!(why(&feed), Some(ErrorCode::BackendUnavailable));
        teller.refused_by("10.0.0.1:7946".parse().unwrap(), Reason::NotSealed);
        assert_eq!(why(&feed), Some(ErrorCode::AccessDenied));
        teller.tell(Event::Refused { at: at(0), refusal: Refusal::KeptOut { left: None } });
        assert_eq!(why(&feed), Some(ErrorCode::AdmissionRefused));
        teller.tell(Event::Joined { at: at(1) });
        assert_eq!((feed.wait_inside(Duration::ZERO).0, why(&feed)), (Standing::Inside, None));
        teller.tell(Event::IdTaken { at: at(2), place: Place::new("10.0.0.9", 7) });
        teller.tell(Event::Left { at: at(2) });
        assert_eq!((feed.standing().0, why(&feed)), (Standing::Ended, Some(ErrorCode::NodeIdTaken)));
    }

    /// A feed, and what the hub hears of it.
    fn excluding() -> (Arc<Feed>, impl Fn() -> Vec<Exclusion>) {
        let heard = Arc::new(std::sync::Mutex::new(Vec::new()));
        let listener = Arc::clone(&heard);
        let exclusions = Exclusions::to(move |exclusion| listener.lock().unwrap().push(exclusion));
        (Feed::new(ProviderId::of("g"), LocalNode::default(), exclusions), move || {
            std::mem::take(&mut *heard.lock().unwrap())
        })
    }

    fn begins(name: &str, seconds: u64) -> Exclusion {
        let reason = "the gossip provider g has found that it does not answer".to_owned();
        Exclusion::Begins { node: id(name), reason, lasting: Duration::from_secs(seconds) }
    }

    fn up(name: &str) -> Event {
        Event::Transition { at: at(5), node: node(name), from: None, to: MemberState::Up }
    }

    #[test]
    fn m3_1_m4_3_whom_the_member_excludes_the_hub_is_told_with_the_update_that_settles_the_death() {
        let (feed, heard) = excluding();
        feed.tell(up("a"));
        feed.tell(Event::Quarantined { at: at(0), node: id("a"), until: at(10) });
        feed.tell(Event::Quarantined { at: at(0), node: id("b"), until: at(10) });
        feed.tell(up("b"));
        assert_eq!(heard(), [], "a death may be contradicted until it is settled");
        feed.apply(&TopologyUpdate { at: at(2), ..update(2, &["b"], Some("a")) }).unwrap();
        assert_eq!(heard(), [begins("a", 8)]);
        feed.apply(&update(3, &["b"], Some("a"))).unwrap();
        assert_eq!(heard(), [], "once");
        feed.tell(up("a"));
        feed.tell(up("a"));
        assert_eq!(heard(), [Exclusion::Ends { node: id("a") }]);
        feed.apply(&update(4, &["a"], Some("b"))).unwrap();
        assert_eq!(heard(), [], "it is not quarantined");
    }

    #[test]
    fn m3_4_an_operator_who_lets_somebody_in_ends_the_exclusion_and_what_is_over_is_forgotten() {
        let (feed, heard) = excluding();
        feed.tell(Event::Quarantined { at: at(0), node: id("b"), until: at(10) });
        feed.apply(&update(1, &["a"], Some("b"))).unwrap();
        let sentence = Sentence::LetIn { incarnation: 0, version: 0 };
        feed.tell(Event::Ruled { at: at(1), node: id("b"), sentence });
        assert_eq!(heard(), [begins("b", 10), Exclusion::Ends { node: id("b") }]);
        feed.tell(Event::Quarantined { at: at(20), node: id("c"), until: at(30) });
        feed.tell(Event::Quarantined { at: at(40), node: id("d"), until: at(50) });
        assert_eq!(lock(&feed.state).quarantined.len(), 1);
    }

    #[test]
    fn m2_5_what_strangers_bring_about_is_logged_now_and_then_only() {
        let mut state = State::default();
        assert!(state.may_log("x") && !state.may_log("x") && state.may_log("y"));
        let logged = (0..TOLD_APART * 2).filter(|number| state.may_log(&number.to_string())).count();
        assert_eq!((logged, state.logged.len()), (TOLD_APART - 2, TOLD_APART));
    }
}
