//! Members, and observers beside them, in one world.

use std::collections::VecDeque;
use std::time::Duration;

use super::member::{GossipMember, id, number_of, place};
use super::protocol::{Act, Arrival, Protocol, Start, View};
use crate::clock::Timestamp;
use crate::membership::machine::Question;
use crate::membership::observer::{Deed, Observer};
use crate::membership::record::Life;
use crate::topology::Members;

/// A process that looks on.
#[derive(Debug)]
pub(super) struct GossipObserver {
    observer: Observer,
    /// The members as the updates lead to them.
    members: Members,
    updates: u64,
    acts: VecDeque<Act>,
    has_ended: bool,
}

impl GossipObserver {
    pub(super) fn new(start: &Start) -> Self {
        let own = Life { id: id(start.node), incarnation: start.life };
        let seeds = start.seeds.iter().map(|seed| place(*seed)).collect();
        let observer = Observer::new("simulated", own, seeds, start.seed, start.now);
        Self { observer, members: Members::new(), updates: 0, acts: VecDeque::new(), has_ended: false }
    }

    fn collect(&mut self) {
        while let Some(deed) = self.observer.deed() {
            let act = match deed {
                Deed::Ask { question, to, bytes } => Act::Ask { question: question.0, to: number_of(&to), bytes },
                Deed::Follows { .. } => Act::Counts("observer follows"),
                Deed::Leaves { .. } => Act::Counts("observer leaves"),
                Deed::Topology(update) => {
                    self.updates += 1;
                    let gone = update.left.iter().chain(&update.dead);
                    let is_known = gone.map(|node| self.members.remove(node.id()).is_some()).collect::<Vec<_>>();
                    let come = update.joined.iter().chain(&update.updated);
                    come.for_each(|node| _ = self.members.insert(std::sync::Arc::clone(node)));
                    match self.members == update.members && update.number == self.updates && !is_known.contains(&false)
                    {
                        true => Act::Counts("observer updates"),
                        false => {
                            Act::Fails(format!("an observer's update {} does not lead to its members", update.number))
                        }
                    }
                }
            };
            self.acts.push_back(act);
        }
    }
}

impl Protocol for GossipObserver {
    fn handle(&mut self, now: Timestamp, arrival: Arrival) {
        match arrival {
            Arrival::Answered { question, answer } => {
                self.observer.answered(Question(question), answer.as_deref(), now);
            }
            Arrival::Time => self.observer.pass(now),
            Arrival::Leave => self.has_ended = true,
            // Nobody sends it anything.
            Arrival::Datagram { .. } | Arrival::Asked { .. } => {
                self.acts.push_back(Act::Fails("an observer was spoken to".to_owned()));
            }
        }
        self.collect();
    }

    fn act(&mut self) -> Option<Act> {
        self.acts.pop_front()
    }

    fn next_at(&self) -> Option<Timestamp> {
        self.observer.next_at()
    }

    fn has_ended(&self) -> bool {
        self.has_ended
    }

    fn view(&self) -> View {
        View { members: self.observer.members().len(), hash: self.observer.members().hash() }
    }

    fn holds(&self, node: usize) -> Option<u64> {
        self.observer.members().get(id(node)).map(|member| member.incarnation())
    }

    fn takes_part(&self) -> bool {
        false
    }
}

/// Either of them.
#[derive(Debug)]
pub(super) enum Mixed {
    Member(Box<GossipMember>),
    Observer(Box<GossipObserver>),
}

impl Mixed {
    pub(super) fn member(&self) -> Option<&GossipMember> {
        match self {
            Mixed::Member(member) => Some(member),
            Mixed::Observer(_) => None,
        }
    }

    pub(super) fn member_mut(&mut self) -> Option<&mut GossipMember> {
        match self {
            Mixed::Member(member) => Some(member),
            Mixed::Observer(_) => None,
        }
    }

    fn either(&self) -> &dyn Protocol {
        match self {
            Mixed::Member(member) => &**member,
            Mixed::Observer(observer) => &**observer,
        }
    }

    fn either_mut(&mut self) -> &mut dyn Protocol {
        match self {
            Mixed::Member(member) => &mut **member,
            Mixed::Observer(observer) => &mut **observer,
        }
    }
}

impl Protocol for Mixed {
    fn handle(&mut self, now: Timestamp, arrival: Arrival) {
        self.either_mut().handle(now, arrival);
    }

    fn act(&mut self) -> Option<Act> {
        self.either_mut().act()
    }

    fn next_at(&self) -> Option<Timestamp> {
        self.either().next_at()
    }

    fn has_ended(&self) -> bool {
        self.either().has_ended()
    }

    fn view(&self) -> View {
        self.either().view()
    }

    fn holds(&self, node: usize) -> Option<u64> {
        self.either().holds(node)
    }

    fn takes_part(&self) -> bool {
        self.either().takes_part()
    }
}

/// So many members, and after them so many observers.
fn cluster(members: usize, observers: usize) -> super::World<Mixed> {
    let mut world = super::World::new(1, move |start| match start.node < members {
        true => Mixed::Member(Box::new(GossipMember::lan(start))),
        false => Mixed::Observer(Box::new(GossipObserver::new(start))),
    });
    (0..members + observers).for_each(|node| world.start(node, &[0, 1, 2]));
    world
}

#[test]
fn m1_5_observers_have_the_view_of_the_members_and_are_in_nobodys() {
    let mut world = cluster(10, 5);
    world.until(Duration::from_secs(10), super::World::is_one_view).expect("one view");
    world.kill(3);
    world.kill(0);
    world.until(Duration::from_secs(30), super::World::is_one_view).expect("one view again");
    assert_eq!(world.failure(), None);
    let waiting: usize = world
        .running()
        .filter_map(|node| world.member(node)?.member())
        .map(|member| member.machine().observers())
        .sum();
    assert_eq!(waiting, 5, "each waits at one member");
}

#[test]
fn m1_5_of_more_observers_than_a_member_has_room_for_the_rest_goes_to_others() {
    let mut world = super::World::new(1, |start: &Start| match start.node < 3 {
        true => {
            let mut settings = crate::membership::settings::Settings::lan("simulated");
            settings.observers = 4;
            Mixed::Member(Box::new(GossipMember::with(start, settings)))
        }
        false => Mixed::Observer(Box::new(GossipObserver::new(start))),
    });
    (0..3).for_each(|node| world.start(node, &[0]));
    world.until(Duration::from_secs(10), super::World::is_one_view).expect("one view");
    (3..13).for_each(|node| world.start(node, &[0]));
    world.pass(Duration::from_secs(60));
    let waiting = |node| world.member(node).and_then(Mixed::member).map(|member| member.machine().observers());
    assert!((0..3).all(|node| waiting(node).is_some_and(|waiting| waiting <= 4)));
    assert_eq!((0..3).filter_map(waiting).sum::<usize>(), 10);
    world.start(1, &[0]);
    world.until(Duration::from_secs(30), super::World::is_one_view).expect("one view again");
}
