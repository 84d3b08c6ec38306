//! Draining and stopping are prompt, whatever the hub, a stream or a backend does, and nothing begins afterwards.

#[path = "support/running.rs"]
mod support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use cluster_provisioning::testkit::{BridgeKind, node};
use cluster_provisioning::*;
use support::*;

/// 100 ms are promised. A busy machine may need more, and what waits for what hangs takes far longer than this.
const PROMPT: Duration = Duration::from_secs(1);
const DRAINING: PlacementGate = PlacementGate::Paused(PauseReason::Draining);

/// PlacementSupervisor hangs from its next call on.
fn hang_in_callback(running: &Running) -> Arc<Latch> {
    let latch = Latch::new();
    let hangs = Arc::clone(&latch);
    running.recorder.on_call(move |call| {
        if call.bridge == BridgeKind::PlacementSupervisor {
            hangs.hang();
        }
    });
    latch
}

/// Each provider reports 2,000 changes a second until the flag is set.
fn push(roles: Vec<Arc<Role>>, over: Arc<AtomicBool>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let nodes: Vec<_> = (0..100).map(|number| Arc::new(node(&format!("m{number}")))).collect();
        let mut number = 0;
        while !over.load(Ordering::Relaxed) {
            for _ in 0..10 {
                // One comes, and the one before it goes.
                let next = match number % 2 {
                    0 => MemberChange::Upsert(Arc::clone(&nodes[number / 2 % nodes.len()])),
                    _ => MemberChange::Remove(nodes[(number / 2 + nodes.len() - 1) % nodes.len()].id().clone()),
                };
                number += 1;
                roles.iter().for_each(|role| role.say(change(next.clone())));
            }
            thread::sleep(Duration::from_millis(5));
        }
    })
}

/// Stops in that way during a callback that hangs, while two providers push, and looks at what is left.
fn stop_during_a_callback(stop: impl FnOnce(ClusterProvisioningService)) {
    let running = Running::new(&["a", "b"]);
    running.role("b").show(&["n1"]);
    running.ready("a", &["n1"]);
    let roles = vec![running.role("a"), running.role("b")];
    let over = Arc::new(AtomicBool::new(false));
    let pushing = push(roles.clone(), Arc::clone(&over));
    let latch = hang_in_callback(&running);
    latch.reached(1);
    let (hub, recorder) = (running.hub().clone(), Arc::clone(&running.recorder));
    // Lets the lanes fill up.
    until("much is said", || roles.iter().all(|role| role.calls(Call::Next) > 500));
    let service = running.into_service();
    let (took, ()) = time(|| stop(service));
    assert!(took < PROMPT, "{took:?}");
    assert_eq!(hub.gate(), DRAINING);
    recorder.take();
    latch.open();
    // The hub's thread holds the bridges, and the streams' threads their providers.
    until("the hub's thread has ended", || Arc::strong_count(&recorder) == 1);
    until("the streams' threads have ended", || roles.iter().all(|role| role.calls(Call::DropStream) == 1));
    until("the providers are let go", || roles.iter().all(|role| role.calls(Call::DropProvider) == 1));
    assert_eq!(recorder.take().len(), 0, "no callback begins when it has returned");
    assert_eq!(hub.unpin().wait(PATIENCE).unwrap_err().code(), ErrorCode::Stopped);
    over.store(true, Ordering::Relaxed);
    pushing.join().unwrap();
}

#[test]
fn p3_5_a_shutdown_waits_neither_for_a_callback_that_hangs_nor_for_streams_that_push() {
    stop_during_a_callback(ClusterProvisioningService::shutdown);
}

#[test]
fn p3_5_dropping_the_service_waits_neither_for_a_callback_that_hangs_nor_for_streams_that_push() {
    stop_during_a_callback(drop);
}

#[test]
fn p3_5_a_shutdown_in_peace_leaves_no_thread_and_no_provider_behind() {
    let running = Running::new(&["a", "b"]);
    running.ready("a", &["n1"]);
    let (recorder, roles) = (Arc::clone(&running.recorder), [running.role("a"), running.role("b")]);
    until("both are open", || roles.iter().all(|role| role.calls(Call::Open) == 1));
    running.into_service().shutdown();
    until("the hub's thread has ended", || Arc::strong_count(&recorder) == 1);
    until("the providers are let go", || roles.iter().all(|role| role.calls(Call::DropProvider) == 1));
}

#[test]
fn p3_5_a_shutdown_does_not_wait_for_a_stream_that_hangs_and_its_thread_ends_by_itself_later() {
    for call in [Call::Open, Call::Next, Call::Cancel, Call::DropStream] {
        let company = Company::new();
        let role = company.role("b");
        let latch = hang_in(&role, call);
        let running = Running::played_by(company, &["a", "b"], |builder| builder);
        running.ready("a", &["n1"]);
        match call {
            Call::Open | Call::Next => latch.reached(1),
            _ => until("it is open", || role.calls(Call::Next) == 1),
        }
        let (hub, recorder) = (running.hub().clone(), Arc::clone(&running.recorder));
        let service = running.into_service();
        let (took, ()) = time(|| service.shutdown());
        assert!(took < PROMPT, "{call:?}: {took:?}");
        assert_eq!(hub.gate(), DRAINING, "{call:?}");
        latch.open();
        until("the hub's thread has ended", || Arc::strong_count(&recorder) == 1);
        until("its provider is let go", || role.calls(Call::DropProvider) == 1);
    }
}

#[test]
fn p3_5_draining_beside_a_stream_in_a_hot_loop_succeeds_and_is_told() {
    let running = Running::new(&["a", "b"]);
    running.ready("a", &["n1"]);
    for name in ["a", "b"] {
        running.role(name).flood(|_| alive());
    }
    until("it floods", || running.role("a").calls(Call::Next) > 10_000);
    assert_eq!(running.service.drain(), Ok(()));
    assert_eq!(running.hub().gate(), DRAINING);
    running.delivered(
        BridgeKind::Remoting,
        |event| matches!(event, ProvisioningEvent::GateChanged(change) if change.gate == DRAINING),
    );
}

#[test]
fn p3_5_draining_during_a_callback_that_hangs_fails_after_the_budget_and_the_gate_is_closed_at_once() {
    let running = Running::with(&["a"], |builder| builder.leave_budget(Duration::from_millis(100)));
    running.ready("a", &["n1"]);
    let latch = hang_in_callback(&running);
    running.role("a").show(&["n1", "n2"]);
    latch.reached(1);
    let (took, drained) = time(|| running.service.drain());
    assert_eq!(drained.unwrap_err().code(), ErrorCode::WaitTimedOut);
    assert!(took < PROMPT, "{took:?}");
    assert_eq!(running.hub().gate(), DRAINING);
    latch.open();
    assert_eq!(running.service.drain(), Ok(()), "the hub gets to it");
}

#[test]
fn p3_5_draining_twice_or_by_many_at_once_succeeds_for_all_and_is_told_once() {
    let running = Running::new(&["a"]);
    running.ready("a", &["n1"]);
    let mut events = running.hub().subscribe(1000);
    thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(|| running.service.drain())).collect();
        assert!(all.into_iter().all(|drained| drained.join().unwrap() == Ok(())));
    });
    assert_eq!(running.service.drain(), Ok(()));
    running.into_service().shutdown();
    let mut told = 0;
    while let Ok(event) = events.recv_timeout(PATIENCE) {
        told += usize::from(matches!(&*event, ProvisioningEvent::GateChanged(_)));
    }
    assert_eq!(told, 1);
}

#[test]
fn p3_5_a_deregistration_that_hangs_costs_its_budget_and_no_more() {
    for drains in [true, false] {
        let company = Company::new();
        let role = company.role("a");
        let latch = hang_in(&role, Call::Leave);
        let running = Running::played_by(company, &["a"], |builder| {
            builder.member(node("me")).leave_budget(Duration::from_millis(100))
        });
        assert_eq!(role.calls(Call::Join), 1);
        let (took, ()) = time(|| {
            if drains {
                assert_eq!(running.service.drain().unwrap_err().code(), ErrorCode::Timeout);
            } else {
                running.into_service().shutdown();
            }
        });
        assert!(took < PROMPT, "{took:?}");
        latch.reached(1);
        latch.open();
        until("the registration is let go", || role.calls(Call::DropRegistration) == 1);
    }
}

#[test]
fn p3_5_a_registration_that_hangs_when_all_is_left_costs_no_more_than_the_budget() {
    let company = Company::new();
    let role = company.role("a");
    let running = Running::played_by(company, &["a"], |builder| {
        builder.member(node("me")).leave_budget(Duration::from_millis(400))
    });
    let latch = hang_in(&role, Call::Renew);
    latch.reached(1);
    let (took, ()) = time(|| running.into_service().shutdown());
    assert!(took < PROMPT, "{took:?}");
    latch.open();
    until("the registration is let go", || role.calls(Call::DropRegistration) == 1);
}

/// What asks a backend.
type Ask = fn(&ClusterProvisioningService) -> Result<(), ProvisioningError>;

const ASKS: [(&str, Ask); 3] = [
    ("register", |service| service.register(played("new", 1))),
    ("reload", |service| service.reload(vec![played("a", 1), played("new", 1)])),
    ("validate", |service| {
        let report = service.validate(&played("new", 1), true)?;
        report.problems().next().cloned().map_or(Ok(()), Err)
    }),
];

#[test]
fn p3_5_draining_breaks_off_what_asks_a_backend_that_hangs() {
    for (what, ask) in ASKS {
        let running = Running::with(&["a"], |builder| builder.connectivity_timeout(PATIENCE));
        running.ready("a", &["n1"]);
        let latch = hang_in(&running.role("new"), Call::Connect);
        let service = Arc::clone(&running.service);
        let asking = thread::spawn(move || ask(&service));
        latch.reached(1);
        let (took, ()) = time(|| {
            assert_eq!(running.service.drain(), Ok(()), "{what}");
            let code = asking.join().unwrap().unwrap_err().code();
            assert!(matches!(code, ErrorCode::Draining | ErrorCode::Stopped), "{what}: {code}");
            running.into_service().shutdown();
        });
        assert!(took < PROMPT, "{what}: {took:?}");
        latch.open();
    }
}

#[test]
fn p3_5_inside_a_callback_draining_would_block_and_does_not_begin() {
    let running = Running::new(&["a"]);
    running.ready("a", &["n1"]);
    let (service, outcomes) = (Arc::downgrade(&running.service), Arc::new(Mutex::new(Vec::new())));
    let noted = Arc::clone(&outcomes);
    running.recorder.on_call(move |_| {
        let drained = service.upgrade().map(|service| service.drain());
        noted.lock().unwrap().extend(drained);
    });
    running.role("a").show(&["n1", "n2"]);
    running.shows(&["n1", "n2"]);
    until("it has tried", || outcomes.lock().unwrap().len() >= 3);
    running.recorder.on_call(|_| {});
    assert!(
        outcomes
            .lock()
            .unwrap()
            .iter()
            .all(|drained| { drained.as_ref().is_err_and(|error| error.code() == ErrorCode::WouldBlock) })
    );
    assert_eq!(running.hub().gate(), PlacementGate::Open);
}

#[test]
fn p3_5_a_service_dropped_inside_a_callback_beside_streams_that_flood_ends_and_calls_nobody_again() {
    let running = Running::new(&["a", "b"]);
    running.ready("a", &["n1"]);
    running.role("b").flood(|_| alive());
    let (hub, recorder, roles) =
        (running.hub().clone(), Arc::clone(&running.recorder), [running.role("a"), running.role("b")]);
    let service = Mutex::new(Some(running.into_service()));
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    recorder.on_call(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        drop(service.lock().unwrap().take());
    });
    roles[0].show(&["n1", "n2"]);
    until("the hub's thread has ended", || Arc::strong_count(&recorder) == 1);
    until("the providers are let go", || roles.iter().all(|role| role.calls(Call::DropProvider) == 1));
    assert_eq!((calls.load(Ordering::SeqCst), hub.gate()), (1, DRAINING));
}
