//! Reads answer at once, whatever else is under way, and what would wait for itself says so.

#[path = "support/running.rs"]
mod support;

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use cluster_provisioning::testkit::{BridgeKind, members};
use cluster_provisioning::*;
use crossbeam_channel::{Receiver, unbounded};
use support::*;

/// A busy machine may need this. Whatever waits for the backend takes far longer.
const AT_ONCE: Duration = Duration::from_secs(1);

/// What asks a backend.
type Ask = fn(&ClusterProvisioningService) -> Result<(), ProvisioningError>;

const ASKS: [(&str, Ask); 3] = [
    ("register", |service| service.register(played("new", 9))),
    ("reload", |service| service.reload(vec![played("a", 1), played("new", 9)])),
    ("validate", |service| {
        let report = service.validate(&played("new", 9), true)?;
        report.problems().next().cloned().map_or(Ok(()), Err)
    }),
];

/// A service whose provider `new` hangs when it is asked whether it is there.
fn with_a_backend_that_hangs() -> (Running, Arc<Latch>) {
    let running = Running::with(&["a"], |builder| builder.connectivity_timeout(PATIENCE));
    running.ready("a", &["n1"]);
    let latch = hang_in(&running.role("new"), Call::Connect);
    (running, latch)
}

/// Runs that in the next callbacks, and hands out what it makes.
fn in_callbacks<T: Send + 'static>(
    running: &Running,
    work: impl Fn(&ClusterProvisioningService) -> T + Send + Sync + 'static,
) -> Receiver<T> {
    let (sender, made) = unbounded();
    let service = Arc::downgrade(&running.service);
    running.recorder.on_call(move |call| {
        if let Some(service) = service.upgrade().filter(|_| call.bridge == BridgeKind::PlacementSupervisor) {
            _ = sender.send(work(&service));
        }
    });
    running.role("a").show(&["n1", "n2"]);
    made
}

/// Everything that only reads or is carried out later.
fn look(service: &ClusterProvisioningService) -> (Duration, usize, bool) {
    let (took, (registered, lifted)) = time(|| {
        let hub = service.hub();
        _ = (hub.snapshot(), hub.latest_snapshot(), hub.gate(), hub.position(), hub.active_provider());
        _ = (hub.last_stream_end(), hub.blocked(), hub.remote_nodes(), hub.metrics(), hub.explain(), hub.providers());
        drop(hub.subscribe(10));
        drop(hub.quarantine(NodeId::new("n2").unwrap(), "no answer"));
        (service.registered().len(), service.lift_suppression())
    });
    (took, registered, lifted)
}

#[test]
fn p3_2_while_a_backend_hangs_reads_answer_at_once_inside_and_outside_of_callbacks() {
    for (what, ask) in ASKS {
        let (running, latch) = with_a_backend_that_hangs();
        let service = Arc::clone(&running.service);
        let asking = thread::spawn(move || ask(&service));
        latch.reached(1);
        let inside = in_callbacks(&running, look).recv_timeout(PATIENCE).expect("it answers inside of a callback");
        running.recorder.on_call(|_| {});
        for (took, registered, lifted) in [inside, look(&running.service)] {
            assert!(took < AT_ONCE, "{what}: {took:?}");
            assert_eq!((registered, lifted), (1, false), "{what}: the last set in force");
        }
        assert!(!asking.is_finished(), "{what} waits for the backend all the time");
        latch.open();
        assert_eq!(asking.join().unwrap(), Ok(()), "{what}");
        let registered = if what == "validate" { 1 } else { 2 };
        assert_eq!(running.service.registered().len(), registered, "{what}");
    }
}

#[test]
fn p3_2_inside_a_callback_whatever_would_wait_for_the_hub_or_for_a_backend_says_so_at_once() {
    let (running, latch) = with_a_backend_that_hangs();
    let service = Arc::clone(&running.service);
    let asking = thread::spawn(move || service.register(played("new", 9)));
    latch.reached(1);
    let refused = in_callbacks(&running, |service| {
        time(|| {
            let outcomes = [
                service.register(played("b", 1)),
                service.remove(&ProviderId::new("a").unwrap()),
                service.reload(vec![played("b", 1)]),
                service.validate(&played("b", 1), true).map(drop),
                service.validate(&played("b", 1), false).map(drop),
                service.drain(),
                service.wait_ready(PATIENCE),
                service.hub().unpin().wait(PATIENCE),
            ];
            outcomes.map(|outcome| outcome.map_err(|error| error.code()))
        })
    });
    let (took, outcomes) = refused.recv_timeout(PATIENCE).expect("they answer inside of a callback");
    assert!(took < AT_ONCE, "{took:?}");
    assert_eq!(outcomes, [Err(ErrorCode::WouldBlock); 8]);
    running.recorder.on_call(|_| {});
    assert_eq!(running.hub().gate(), PlacementGate::Open);
    assert_eq!(running.service.registered().len(), 1);
    latch.open();
    assert_eq!(asking.join().unwrap(), Ok(()));
}

#[test]
fn p3_5_draining_is_not_held_up_by_a_change_that_waits_for_another_one() {
    let (running, latch) = with_a_backend_that_hangs();
    let changes: Vec<_> = ["new", "next", "last"]
        .into_iter()
        .map(|name| {
            let service = Arc::clone(&running.service);
            let change = thread::spawn(move || service.register(played(name, 1)));
            // The others wait for the first.
            latch.reached(1);
            change
        })
        .collect();
    let (took, drained) = time(|| running.service.drain());
    assert_eq!(drained, Ok(()));
    assert!(took < AT_ONCE, "{took:?}");
    for change in changes {
        assert_eq!(change.join().unwrap().unwrap_err().code(), ErrorCode::Draining);
    }
    assert_eq!(running.service.registered().len(), 1);
    latch.open();
}

#[test]
fn p5_4_readers_see_the_set_before_a_reload_or_the_one_after_it_and_never_anything_between() {
    let running = Running::new(&["a", "b"]);
    running.ready("a", &["n1"]);
    let sets = [["a", "b"], ["c", "d"]];
    let over = Mutex::new(false);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut reads = 0;
                    while !*over.lock().unwrap() {
                        let registered = running.service.registered();
                        let ids: Vec<_> = registered.iter().map(|entry| entry.descriptor.id.as_str()).collect();
                        assert!(sets.iter().any(|set| *set == *ids), "{ids:?}");
                        let providers = running.hub().providers();
                        let ids: Vec<_> = providers.iter().map(|status| status.id.as_str()).collect();
                        assert!(sets.iter().any(|set| *set == *ids), "{ids:?}");
                        reads += 1;
                    }
                    reads
                })
            })
            .collect();
        for turn in 0..50 {
            let set = sets[(turn + 1) % 2].map(|name| played(name, 1));
            assert_eq!(running.service.reload(set.to_vec()), Ok(()));
        }
        *over.lock().unwrap() = true;
        assert!(readers.into_iter().all(|reader| reader.join().unwrap() > 0));
    });
}

#[test]
fn p2_1_while_a_backend_hangs_changes_of_the_topology_are_delivered() {
    let (running, latch) = with_a_backend_that_hangs();
    let service = Arc::clone(&running.service);
    let asking = thread::spawn(move || service.register(played("new", 9)));
    latch.reached(1);
    running.role("a").show(&["n1", "n2"]);
    running.shows(&["n1", "n2"]);
    until("it can be read", || running.hub().snapshot().unwrap().members == members(&["n1", "n2"]));
    latch.open();
    assert_eq!(asking.join().unwrap(), Ok(()));
}
