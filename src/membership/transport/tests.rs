//! Members of a real network, on this host.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::frame::{Frame, Reason};
use super::node::{Host, Node, Standing};
use crate::backoff::Jitter;
use crate::clock::{Clock, SystemClock};
use crate::membership::event::Event;
use crate::membership::lifecycle::NotDone;
use crate::membership::machine::Order;
use crate::membership::message::{LabelHash, MessageWriter};
use crate::membership::place::Place;
use crate::membership::record::Life;
use crate::membership::settings::Settings;
use crate::membership::settling::TopologyUpdate;
use crate::topology::{ClusterNode, NodeId};

const DEADLINE: Duration = Duration::from_secs(60);

/// What a host was told.
#[derive(Debug)]
enum Told {
    Update(TopologyUpdate),
    Event(Event),
    RefusedBy(Reason),
    NotFound(String),
    Follows(Option<Place>),
}

struct Recorder(Sender<Told>, bool);

impl Host for Recorder {
    fn apply(&mut self, update: &TopologyUpdate) -> Result<(), String> {
        _ = self.0.send(Told::Update(update.clone()));
        assert!(!self.1, "a host that panics");
        Ok(())
    }

    fn tell(&mut self, event: Event) {
        _ = self.0.send(Told::Event(event));
    }

    fn refused_by(&mut self, _: SocketAddr, reason: Reason) {
        _ = self.0.send(Told::RefusedBy(reason));
    }

    fn follows(&mut self, member: Option<Place>) {
        _ = self.0.send(Told::Follows(member));
    }

    fn not_found(&mut self, host: &str, _: &str) {
        _ = self.0.send(Told::NotFound(host.to_owned()));
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
}

fn described(name: &str) -> Arc<ClusterNode> {
    let now = SystemClock::new().now().as_nanos() / 1_000_000;
    Arc::new(ClusterNode::builder(name, "127.0.0.1", 7000).incarnation(now).build().unwrap())
}

fn id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn start_as(name: &str, label: &str, seeds: Vec<Place>, panics: bool) -> (Node, Receiver<Told>) {
    let (sender, told) = unbounded();
    let host = Box::new(Recorder(sender, panics));
    let clock = SystemClock::shared();
    let node =
        Node::member((Settings::lan(label), true, None), (described(name), None), loopback(0), seeds, &clock, host);
    (node.unwrap().unwrap(), told)
}

fn start(name: &str, seeds: Vec<Place>) -> (Node, Receiver<Told>) {
    start_as(name, "test", seeds, false)
}

fn at(node: &Node) -> Place {
    Place::new("127.0.0.1", node.port().unwrap())
}

fn names(node: &Node) -> Vec<String> {
    node.standing().1.iter().map(|member| member.id().to_string()).collect()
}

/// Waits until the node shows these.
fn wait_for(node: &Node, expected: &[&str]) {
    wait_until(&format!("{expected:?}"), || names(node) == expected);
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let ends = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < ends, "it never came to that: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn wait_told(told: &Receiver<Told>, mut is_it: impl FnMut(&Told) -> bool) -> Told {
    let ends = Instant::now() + DEADLINE;
    loop {
        let one = told.recv_deadline(ends).expect("it was never told");
        if is_it(&one) {
            return one;
        }
    }
}

#[test]
fn m1_4_m2_2_m3_1_members_find_each_other_and_lose_whoever_is_killed() {
    let (a, _) = start("a", vec![]);
    let (b, told) = start("b", vec![at(&a)]);
    let (c, _) = start("c", vec![at(&b)]);
    [&a, &b, &c].into_iter().for_each(|node| wait_for(node, &["a", "b", "c"]));
    wait_until("all hold the same", || [&a, &b, &c].iter().all(|node| node.converged().is_some()));
    drop(c);
    [&a, &b].into_iter().for_each(|node| wait_for(node, &["a", "b"]));
    let dead =
        |told: &Told| matches!(told, Told::Update(update) if update.dead.iter().any(|node| *node.id() == id("c")));
    wait_told(&told, dead);
    assert_eq!(a.quarantined().iter().map(|entry| entry.id.clone()).collect::<Vec<_>>(), [id("c")]);
    let metrics = b.metrics().unwrap();
    assert_eq!((metrics.members, metrics.died), (2, 1));
    assert!(metrics.datagrams > 0 && metrics.questions > 0);
}

#[test]
fn m1_3_m2_4_a_member_that_leaves_is_gone_at_once_and_its_thread_has_ended() {
    let (a, told) = start("a", vec![]);
    let (b, _) = start("b", vec![at(&a)]);
    wait_for(&a, &["a", "b"]);
    assert!(b.leave(Duration::from_secs(2)));
    assert_eq!(b.standing().0, Standing::Ended);
    wait_for(&a, &["a"]);
    let left =
        |told: &Told| matches!(told, Told::Update(update) if update.left.iter().any(|node| *node.id() == id("b")));
    wait_told(&told, left);
    assert!(a.quarantined().is_empty());
    assert_eq!(b.rule(id("x"), Order::Lift), Err(NotDone::NotStarted));
    assert!(a.leave(Duration::from_secs(2)), "nobody is left to be told");
}

#[test]
fn m2_5_a_member_of_another_cluster_is_refused_and_told_why() {
    let (a, at_a) = start("a", vec![]);
    let (b, told) = start_as("b", "another", vec![at(&a)], false);
    wait_told(&told, |told| matches!(told, Told::RefusedBy(Reason::OtherCluster)));
    wait_told(&at_a, |told| matches!(told, Told::Event(Event::Unusable { .. })));
    assert_eq!((names(&a), b.standing().0), (vec!["a".to_owned()], Standing::Outside));
}

#[test]
fn m1_4_a_seed_is_found_by_its_name_also_if_it_comes_later_and_a_name_that_is_none_is_told() {
    let free = UdpSocket::bind(loopback(0)).unwrap().local_addr().unwrap().port();
    let seeds = vec![Place::new("no-such-host.invalid", 7946), Place::new("localhost", free)];
    let (b, told) = start("b", seeds);
    wait_told(&told, |told| matches!(told, Told::NotFound(host) if host == "no-such-host.invalid"));
    assert_eq!(b.standing().0, Standing::Outside);
    let host = Box::new(Recorder(unbounded().0, false));
    let clock = SystemClock::shared();
    let a =
        Node::member((Settings::lan("test"), true, None), (described("a"), None), loopback(free), vec![], &clock, host);
    let a = a.unwrap().unwrap();
    [&a, &b].into_iter().for_each(|node| wait_for(node, &["a", "b"]));
}

#[test]
fn m5_5_an_observer_is_told_by_a_member_and_by_another_one_when_that_is_gone() {
    let (a, _) = start("a", vec![]);
    let (b, _) = start("b", vec![at(&a)]);
    wait_for(&a, &["a", "b"]);
    let (sender, told) = unbounded();
    let own = Life { id: id("observer"), incarnation: 1 };
    let (clock, host) = (SystemClock::shared(), Box::new(Recorder(sender, false)));
    let observer = Node::observer(("test", None), own, vec![at(&a)], &clock, host).unwrap();
    wait_for(&observer, &["a", "b"]);
    wait_told(&told, |told| matches!(told, Told::Follows(Some(_))));
    assert_eq!((observer.standing().0, observer.port()), (Standing::Inside, None));
    let (c, _) = start("c", vec![at(&b)]);
    wait_for(&observer, &["a", "b", "c"]);
    assert!(a.leave(Duration::from_secs(2)));
    wait_for(&observer, &["b", "c"]);
    assert_eq!(c.standing().0, Standing::Inside);
    assert!(observer.leave(Duration::from_secs(2)));
    assert_eq!(observer.standing().0, Standing::Ended);
}

#[test]
fn m4_4_a_host_that_panics_is_offered_the_topology_again() {
    let (a, told) = start_as("a", "test", vec![], true);
    let not_applied = |told: &Told| matches!(told, Told::Event(Event::NotApplied { failures: 2, .. }));
    wait_told(&told, not_applied);
    assert_eq!(names(&a), ["a"]);
}

#[test]
fn m4_4_m5_5_a_host_that_panics_is_offered_the_topology_of_an_observer_again() {
    let (a, _) = start("a", vec![]);
    wait_for(&a, &["a"]);
    let own = Life { id: id("observer"), incarnation: 1 };
    let (sender, told) = unbounded();
    let (clock, host) = (SystemClock::shared(), Box::new(Recorder(sender, true)));
    let observer = Node::observer(("test", None), own, vec![at(&a)], &clock, host).unwrap();
    wait_told(&told, |told| matches!(told, Told::Event(Event::NotApplied { failures: 1, .. })));
    wait_told(&told, |told| matches!(told, Told::Update(update) if update.number == 1));
    wait_told(&told, |told| matches!(told, Told::Event(Event::NotApplied { failures: 2, .. })));
    assert_eq!(names(&observer), ["a"]);
}

#[test]
fn m2_5_whatever_a_stranger_sends_the_members_hear_each_other_still() {
    let (a, _) = start("a", vec![]);
    let (b, _) = start("b", vec![at(&a)]);
    wait_for(&a, &["a", "b"]);
    let stranger = UdpSocket::bind(loopback(0)).unwrap();
    let silent: Vec<_> = (0..20).map(|_| TcpStream::connect(loopback(a.port().unwrap())).unwrap()).collect();
    for length in (0..2000).step_by(7) {
        _ = stranger.send_to(&vec![length as u8; length], loopback(a.port().unwrap()));
    }
    wait_until("it was counted", || a.metrics().unwrap().unusable > 100);
    let (c, _) = start("c", vec![at(&a)]);
    [&a, &b, &c].into_iter().for_each(|node| wait_for(node, &["a", "b", "c"]));
    drop(silent);
}

/// A seed that answers each question by what comes next of these, and then holds the connection for a while or lets go of it.
fn hostile(answers: Vec<Vec<u8>>) -> Place {
    let listener = TcpListener::bind(loopback(0)).unwrap();
    let place = Place::new("127.0.0.1", listener.local_addr().unwrap().port());
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for (number, answer) in answers.iter().cycle().enumerate() {
            let Ok((mut stream, _)) = listener.accept() else { return };
            _ = stream.read(&mut [0; 2000]);
            _ = stream.write_all(answer);
            held.extend((number % 2 == 0).then_some(stream));
            held.drain(..held.len().saturating_sub(8));
        }
    });
    place
}

#[test]
fn m2_5_whatever_a_seed_answers_whoever_asks_is_let_in_by_another_one_and_an_observer_is_told() {
    let mut jitter = Jitter::new(1);
    let mut junk = |length: usize| (0..length).map(|_| jitter.next() as u8).collect::<Vec<u8>>();
    let framed = |bytes: Vec<u8>| Frame::Message(bytes).into_bytes();
    let headed = |rest: Vec<u8>| {
        let writer = MessageWriter::new(LabelHash::of("test"), &Life { id: id("seed"), incarnation: 1 });
        [writer.into_bytes(), rest].concat()
    };
    let all = vec![
        vec![0xff; 9],
        vec![],
        vec![0, 0, 0, 0, 6],
        vec![0, 0],
        vec![0, 0, 0, 0, 99],
        [&5000u32.to_be_bytes()[..], &junk(4000)].concat(),
        junk(300),
        framed(junk(1)),
        framed(junk(3000)),
        framed(headed(junk(40))),
        framed(headed(vec![19, 0])),
        framed(headed(vec![35, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 0])),
    ];
    let reasons = vec![vec![0, 0, 0, 0, 6], vec![0, 0, 0, 0, 99], framed(junk(9))];
    let (a, _) = start("a", vec![]);
    let (b, _told) = start("b", vec![hostile(all.clone()), at(&a)]);
    [&a, &b].into_iter().for_each(|node| wait_for(node, &["a", "b"]));
    let own = Life { id: id("observer"), incarnation: 1 };
    let (clock, host) = (SystemClock::shared(), Box::new(Recorder(unbounded().0, false)));
    let observer = Node::observer(("test", None), own, vec![hostile(all), at(&b)], &clock, host).unwrap();
    wait_for(&observer, &["a", "b"]);
    let (c, at_c) = start("c", vec![hostile(reasons)]);
    wait_told(&at_c, |told| matches!(told, Told::RefusedBy(Reason::Busy)));
    wait_told(&at_c, |told| matches!(told, Told::RefusedBy(Reason::Other(99))));
    wait_told(&at_c, |told| matches!(told, Told::Event(Event::Unusable { .. })));
    c.set_seeds(vec![at(&b)]);
    [&a, &b, &c].into_iter().for_each(|node| wait_for(node, &["a", "b", "c"]));
    wait_for(&observer, &["a", "b", "c"]);
}

#[test]
fn m1_4_a_member_that_is_told_of_a_change_of_its_metadata_tells_everybody() {
    let (a, _) = start("a", vec![]);
    let (b, _) = start("b", vec![at(&a)]);
    wait_for(&b, &["a", "b"]);
    let changed = ClusterNode::builder("b", "127.0.0.1", 7000).kind("worker").build().unwrap();
    b.describe(Arc::new(changed)).unwrap();
    let kinds = || a.standing().1.get(id("b")).map(|node| node.kinds().map(str::to_owned).collect::<Vec<_>>());
    wait_until("the kind is known", || kinds() == Some(vec!["worker".to_owned()]));
    assert_eq!(b.own().unwrap().kinds().collect::<Vec<_>>(), ["worker"]);
}

#[test]
fn m3_3_m3_5_whom_an_operator_keeps_out_is_refused_until_that_is_lifted() {
    let (a, at_a) = start("a", vec![]);
    a.rule(id("b"), Order::Pin(None)).unwrap();
    let (b, told) = start("b", vec![at(&a)]);
    wait_told(&told, |told| matches!(told, Told::Event(Event::Refused { .. })));
    wait_told(&at_a, |told| matches!(told, Told::Event(Event::TurnedAway { .. })));
    assert_eq!(a.quarantined().len(), 1);
    a.rule(id("b"), Order::Lift).unwrap();
    wait_for(&b, &["a", "b"]);
}

#[test]
fn m3_1_a_member_whose_connection_the_program_has_lost_is_suspected_and_contradicts() {
    let (a, _) = start("a", vec![]);
    let (b, told) = start("b", vec![at(&a)]);
    [&a, &b].iter().for_each(|member| wait_for(member, &["a", "b"]));
    b.accuse(id("a")).unwrap();
    use crate::membership::event::MemberState::{Suspect, Up};
    let mut states = Vec::new();
    wait_told(&told, |told| {
        if let Told::Event(Event::Transition { node, to, .. }) = told
            && *node.id() == id("a")
        {
            states.push(*to);
        }
        states.ends_with(&[Suspect, Up])
    });
    wait_for(&b, &["a", "b"]);
}
