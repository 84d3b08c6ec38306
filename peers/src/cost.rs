//! What a member costs: bytes on the heap, and time of a processor.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use cluster_provisioning::Timestamp;
use cluster_provisioning::testkit::gossip::{Act, Arrival, Protocol, Start, View, World};

use crate::scenarios::{Starts, secs, settled};

/// The system's allocator, which counts what is in use.
struct Counting;

static IN_USE: AtomicI64 = AtomicI64::new(0);

// SAFETY: every call goes on to the system's allocator as it came; counting does not touch what is allocated.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller keeps to the contract of this very function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: as above; the pointer came from `alloc`, and so from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// For how long this thread has had a processor; `None` where the system does not tell.
fn processor_time() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// What a member of a cluster at peace costs.
pub struct Cost {
    /// Bytes on the heap that the members free as they are dropped, for each.
    pub heap: f64,
    /// Of a second, for each member and second: microseconds of a processor, those of the world among them.
    pub processor: Option<f64>,
    /// Bytes that a member sends in a second, those over the reliable channel among them.
    pub bytes: f64,
    /// How many datagrams a member sends in a second, and how long they are on the average.
    pub datagrams: (f64, usize),
}

/// Nothing else may run beside.
pub fn of<M: Protocol>(starts: impl Starts<M>, nodes: usize) -> Option<Cost> {
    let mut world = settled(starts, 1, nodes, secs(30))?;
    let counts = world.counts().clone();
    let processor = a_minute(&mut world, nodes);
    let (datagrams, bytes) = (world.counts().datagrams - counts.datagrams, world.counts().bytes - counts.bytes);
    let reliable = world.counts().question_bytes - counts.question_bytes;
    let before = IN_USE.load(Ordering::Relaxed);
    (0..nodes).for_each(|node| world.kill(node));
    let heap = (before - IN_USE.load(Ordering::Relaxed)) as f64 / nodes as f64;
    let length = bytes.checked_div(datagrams).unwrap_or(0) as usize;
    let each = |sum: u64| sum as f64 / nodes as f64 / 60.0;
    Some(Cost { heap, processor, bytes: each(bytes + reliable), datagrams: (each(datagrams), length) })
}

fn a_minute<M: Protocol>(world: &mut World<M>, nodes: usize) -> Option<f64> {
    let begun = processor_time()?;
    world.pass(secs(60));
    Some((processor_time()? - begun).as_secs_f64() * 1e6 / nodes as f64 / 60.0)
}

/// What the world itself takes of a processor where each member sends so many datagrams in a second, each so long, and
/// does nothing else.
pub fn of_the_world(nodes: usize, (datagrams, length): (f64, usize)) -> Option<f64> {
    let every = Duration::from_secs_f64(1.0 / datagrams.max(0.01));
    let mut world = World::new(1, move |start: &Start| Sender {
        next_at: start.now + every.mul_f64(start.seed as f64 / u64::MAX as f64),
        every,
        length,
        to: start.seed as usize % nodes,
        nodes,
        act: None,
    });
    (0..nodes).for_each(|node| world.start(node, &[]));
    world.pass(secs(5));
    a_minute(&mut world, nodes)
}

/// Sends datagrams, and nothing else.
struct Sender {
    next_at: Timestamp,
    every: Duration,
    length: usize,
    to: usize,
    nodes: usize,
    act: Option<Act>,
}

impl Protocol for Sender {
    fn handle(&mut self, now: Timestamp, arrival: Arrival) {
        if arrival == Arrival::Time && self.next_at <= now {
            self.next_at = self.next_at + self.every;
            self.to = (self.to + 1) % self.nodes;
            self.act = Some(Act::Send { to: self.to, bytes: vec![0; self.length] });
        }
    }

    fn act(&mut self) -> Option<Act> {
        self.act.take()
    }

    fn next_at(&self) -> Option<Timestamp> {
        Some(self.next_at)
    }

    fn has_ended(&self) -> bool {
        false
    }

    fn view(&self) -> View {
        View { members: 0, hash: 0 }
    }

    fn holds(&self, _: usize) -> Option<u64> {
        None
    }
}
