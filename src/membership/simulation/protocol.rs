//! What a simulated world asks of a member, of whichever protocol: so that others run in the same world.

use std::time::Duration;

use crate::clock::Timestamp;

/// How a member is started.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Start {
    /// Which node it is: nodes are numbered from 0, and a datagram is sent to a number.
    pub node: usize,
    /// Which life of the node it is: greater than each former one. It is the time of the start in milliseconds.
    pub life: u64,
    /// Whom it asks to be let in. A node that is among them itself is the first one.
    pub seeds: Vec<usize>,
    /// Of its own randomness.
    pub seed: u64,
    /// The time.
    pub now: Timestamp,
}

/// What happens to a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A datagram of that node.
    Datagram {
        /// Who sent it.
        from: usize,
        /// What it sent.
        bytes: Vec<u8>,
    },
    /// Somebody asks over the reliable channel; the answer goes back with that number.
    Asked {
        /// Of the question.
        channel: u64,
        /// What is asked.
        bytes: Vec<u8>,
    },
    /// A question of its own was answered; `None` where nobody has answered in time.
    Answered {
        /// The number that it gave the question.
        question: u64,
        /// The answer.
        answer: Option<Vec<u8>>,
    },
    /// The time that it asked for has come.
    Time,
    /// It is to leave.
    Leave,
}

/// How a member sees another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Seen {
    /// It asked to be let in, and has not answered yet.
    Joining,
    /// It is a member.
    Up,
    /// It is a member that does not answer somebody.
    Suspect,
    /// It was found dead.
    Dead,
    /// It said that it leaves.
    Left,
}

/// What a member does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// It sends a datagram, which may be lost.
    Send {
        /// To whom.
        to: usize,
        /// What.
        bytes: Vec<u8>,
    },
    /// It asks over the reliable channel.
    Ask {
        /// Its number of the question.
        question: u64,
        /// Whom.
        to: usize,
        /// What.
        bytes: Vec<u8>,
    },
    /// It answers such a question.
    Answer {
        /// The number of the question.
        channel: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// It sees another node, in that life, in another state than before.
    Sees {
        /// Which node.
        node: usize,
        /// In which life.
        life: u64,
        /// How it saw that life before.
        before: Option<Seen>,
        /// How it sees it now.
        state: Seen,
    },
    /// Something else that is worth counting.
    Counts(&'static str),
    /// Something that must never happen. The run has failed.
    Fails(String),
}

/// What a member holds, in short: equal ones hold the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// How many members there are, itself among them.
    pub members: usize,
    /// A hash of the members with their lives, however they came about.
    pub hash: u64,
}

/// A member of some protocol, as a pure machine: what happens goes in with the time, and what is to be done comes out.
pub trait Protocol {
    /// Something happens.
    fn handle(&mut self, now: Timestamp, arrival: Arrival);

    /// The next thing that it does, if there is one.
    fn act(&mut self) -> Option<Act>;

    /// When it has to be called at the latest; never if absent.
    fn next_at(&self) -> Option<Timestamp>;

    /// Whether it has ended by itself, after it was told to leave.
    fn has_ended(&self) -> bool;

    /// What it holds.
    fn view(&self) -> View;

    /// In which life it holds that node for a member; itself, too.
    fn holds(&self, node: usize) -> Option<u64>;

    /// Whether it is a member itself, and not somebody who only looks on. True by default.
    fn takes_part(&self) -> bool {
        true
    }
}

/// After so long a question that cannot be put counts as not answered.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// So long a member may take for an answer.
pub(super) const HELD: Duration = Duration::from_secs(10);
