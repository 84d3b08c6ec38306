//! Which provider is followed, when another is, and what happens while none can serve.

#[path = "support/hub.rs"]
mod support;

use cluster_provisioning::testkit::{Harness, HarnessSettings, members};
use cluster_provisioning::*;
use support::*;

const NOTHING: Vec<String> = Vec::new();
const TEN: [&str; 10] = ["n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9"];

fn fail(hub: &mut Harness, provider: &str) {
    for _ in 0..3 {
        hub.degrade(provider, refused());
    }
}

fn switches(hub: &mut Harness) -> Vec<String> {
    only(hub, &["changed"])
}

/// Lets the time pass until the provider's stream is open again, and says how long that took.
fn reopened_after(hub: &mut Harness, provider: &str) -> std::time::Duration {
    let start = hub.now();
    while !hub.is_open(provider) {
        hub.advance(millis(1));
        assert!(hub.now().since(start) < seconds(60), "it was never opened again");
    }
    hub.now().since(start)
}

#[test]
fn p2_5_the_healthy_provider_with_the_highest_priority_is_followed() {
    let mut hub = Harness::new(&[("low", 1), ("high", 9), ("also-high", 9), ("mute", 10)]);
    hub.show("low", members(&["n1"]));
    hub.show("also-high", members(&["n1"]));
    hub.show("high", members(&["n1"]));
    hub.advance(SECOND);
    assert_eq!(switches(&mut hub), ["changed -> high initial"]);
}

#[test]
fn p2_5_a_lower_provider_waits_a_second_for_a_better_one_at_the_start_and_no_longer() {
    let mut hub = Harness::new(&[("a", 10), ("b", 5)]);
    hub.show("b", members(&["n1"]));
    hub.advance(millis(999));
    assert_eq!(switches(&mut hub), NOTHING);
    hub.advance(millis(1));
    assert_eq!(switches(&mut hub), ["changed -> b initial"]);
    let mut hub = Harness::new(&[("a", 10), ("b", 5)]);
    hub.show("b", members(&["n1"]));
    hub.degrade("a", refused());
    assert_eq!(switches(&mut hub), ["changed -> b initial"], "a has answered: by an error");
}

#[test]
fn p2_5_fails_over_to_the_best_healthy_provider_when_the_stream_ends() {
    let mut hub = Harness::new(&[("a", 10), ("b", 5), ("c", 7), ("d", 8)]);
    for provider in ["a", "b", "c", "d"] {
        hub.show(provider, members(&["n1"]));
    }
    hub.degrade("d", refused());
    settle(&mut hub);
    hub.end("a");
    let expected = ["ended a", "health a degraded", "changed a -> c stream-ended", "snapshot c: n1"];
    assert_eq!(story(&mut hub), expected);
    assert_eq!((hub.active().as_deref(), hub.metrics().failovers), (Some("c"), 1));
}

#[test]
fn p2_2_the_end_signal_carries_the_hash_and_the_snapshot_stays() {
    let mut hub = one(&["n1", "n2"]);
    hub.event("a", errored());
    let events = hub.take();
    let ProvisioningEvent::StreamEnded(end) = &events[0] else { panic!("{events:?}") };
    assert_eq!(end.snapshot_hash, Some(members(&["n1", "n2"]).hash()));
    assert_eq!(end.termination, ProviderTermination::Errored { reason: refused() });
    assert!(end.was_active);
    assert_eq!(hub.latest_snapshot().unwrap().members, members(&["n1", "n2"]));
    assert_eq!(hub.gate(), PlacementGate::Open, "last known good serves");
}

#[test]
fn p2_2_the_end_of_a_standby_is_told_and_changes_nothing() {
    let mut hub = two(&["n1"]);
    hub.end("b");
    let events = hub.take();
    let ProvisioningEvent::StreamEnded(end) = &events[0] else { panic!("{events:?}") };
    assert_eq!((end.provider_id.as_str(), end.was_active), ("b", false));
    assert_eq!((text(&events[1]), events.len()), ("health b degraded".into(), 2));
}

#[test]
fn p2_2_a_stream_that_never_showed_anything_ends_without_a_hash() {
    let mut hub = Harness::new(&[("a", 1)]);
    hub.event("a", errored());
    let events = hub.take();
    let ProvisioningEvent::StreamEnded(end) = &events[0] else { panic!("{events:?}") };
    assert_eq!(end.snapshot_hash, None);
}

#[test]
fn p2_5_a_terminated_provider_without_alternate_stays_followed_and_degraded_and_is_opened_again() {
    let mut hub = one(&["n1"]);
    hub.event("a", errored());
    assert_eq!(story(&mut hub), ["ended a", "health a degraded", "stale backend-unavailable"]);
    assert_eq!(hub.active().as_deref(), Some("a"));
    let pause = reopened_after(&mut hub, "a");
    assert!((SECOND..=seconds(2)).contains(&pause), "the first pause is 2 s, spread over its upper half: {pause:?}");
    assert_eq!(hub.opened("a"), 2);
    hub.show("a", members(&["n1"]));
    assert_eq!(story(&mut hub), ["health a healthy", "fresh"]);
}

#[test]
fn p2_5_pauses_double_up_to_thirty_seconds_and_begin_again_after_thirty_healthy_ones() {
    let mut hub = one(&["n1"]);
    for longest in [2, 4, 8, 16, 30, 30] {
        hub.event("a", errored());
        let pause = reopened_after(&mut hub, "a");
        assert!((seconds(longest) / 2..=seconds(longest)).contains(&pause), "{pause:?} of {longest} s");
    }
    hub.show("a", members(&["n1"]));
    advance_alive(&mut hub, seconds(29), &["a"]);
    hub.end("a");
    assert!(reopened_after(&mut hub, "a") >= seconds(15), "29 s were not enough");
    hub.show("a", members(&["n1"]));
    advance_alive(&mut hub, seconds(30), &["a"]);
    hub.end("a");
    assert!(reopened_after(&mut hub, "a") <= seconds(2));
}

#[test]
fn p2_5_a_stream_is_opened_again_when_it_is_due_not_when_the_hub_next_looks_at_the_time() {
    let mut hub = one(&["n1"]);
    let mut pauses = Vec::new();
    for _ in 0..3 {
        hub.event("a", errored());
        pauses.push(reopened_after(&mut hub, "a"));
    }
    assert!(pauses.iter().any(|pause| pause.subsec_millis() > 0), "{pauses:?}");
}

#[test]
fn p2_5_a_late_alternate_is_followed_as_soon_as_it_is_eligible() {
    let mut hub = Harness::new(&[("a", 10), ("b", 5)]);
    hub.show("a", members(&["n1"]));
    hub.end("a");
    settle(&mut hub);
    hub.show("b", members(&["n1"]));
    assert_eq!(switches(&mut hub), ["changed a -> b stream-ended"]);
}

#[test]
fn p2_5_fifteen_seconds_of_silence_switch_with_timeout_after_the_end_signal() {
    let mut hub = two(&["n1"]);
    hub.event("a", alive());
    advance_alive(&mut hub, millis(14_999), &["b"]);
    assert_eq!(story(&mut hub), NOTHING);
    hub.advance(millis(1));
    assert_eq!(story(&mut hub), ["ended a", "health a unreachable", "changed a -> b timeout", "snapshot b: n1"]);
    assert!(!hub.is_open("a"));
    let pause = reopened_after(&mut hub, "a");
    assert!((SECOND..=seconds(2)).contains(&pause), "one pause, and the first: {pause:?}");
}

#[test]
fn p2_5_the_end_of_a_silent_stream_says_that_it_was_followed_and_why_it_ended() {
    let mut hub = two(&["n1"]);
    advance_alive(&mut hub, seconds(16), &["b"]);
    let ended = hub.take().into_iter().find_map(|event| match event {
        ProvisioningEvent::StreamEnded(end) => Some(end),
        _ => None,
    });
    let end = ended.unwrap();
    let ProviderTermination::Errored { reason } = end.termination else { panic!() };
    assert_eq!((end.was_active, reason.code()), (true, ErrorCode::StreamSilent));
}

#[test]
fn p2_5_any_event_is_a_sign_of_life() {
    let mut hub = two(&["n1"]);
    for event in [alive(), ProviderEvent::Heartbeat { current: true }, changes([]), doubtful(), alive()] {
        hub.event("a", event);
        hub.event("b", alive());
        hub.advance(seconds(10));
    }
    assert_eq!(only(&mut hub, &["ended"]), NOTHING);
    assert_eq!(hub.opened("a"), 1);
}

#[test]
fn p2_5_a_switch_cools_down_without_touching_health_so_silence_is_still_noticed() {
    let mut hub = Harness::new(&[("a", 10), ("b", 5), ("c", 1)]);
    for provider in ["a", "b", "c"] {
        hub.show(provider, members(&["n1"]));
    }
    hub.end("a");
    settle(&mut hub);
    assert_eq!(hub.provider("a").errors, 1, "the switch has not cleared it");
    advance_alive(&mut hub, seconds(15), &["c"]);
    assert_eq!(switches(&mut hub), ["changed b -> c timeout"]);
}

#[test]
fn p2_5_an_emergency_does_not_wait_for_the_cooldown() {
    let mut hub = Harness::new(&[("a", 10), ("b", 5), ("c", 1)]);
    for provider in ["a", "b", "c"] {
        hub.show(provider, members(&["n1"]));
    }
    hub.end("a");
    hub.advance(millis(1));
    hub.end("b");
    assert_eq!(
        switches(&mut hub),
        ["changed -> a initial", "changed a -> b stream-ended", "changed b -> c stream-ended"]
    );
}

#[test]
fn p2_5_three_errors_in_a_row_switch_with_health_degraded_two_do_not() {
    let mut hub = two(&["n1"]);
    hub.degrade("a", refused());
    hub.degrade("a", refused());
    assert_eq!(only(&mut hub, &["changed", "health"]), ["health a degraded"]);
    hub.refresh("a");
    hub.degrade("a", refused());
    hub.degrade("a", refused());
    assert_eq!(switches(&mut hub), NOTHING, "the refresh began the count anew");
    hub.degrade("a", refused());
    let expected = ["health a unreachable", "changed a -> b health-degraded", "snapshot b: n1", "fresh"];
    assert_eq!(story(&mut hub), expected);
}

#[test]
fn p2_5_fifteen_degraded_seconds_switch_to_a_healthy_standby_but_not_to_a_degraded_one() {
    let mut hub = two(&["n1"]);
    advance_alive(&mut hub, seconds(10), &["a", "b"]);
    hub.degrade("a", refused());
    hub.degrade("b", refused());
    advance_alive(&mut hub, seconds(20), &["a", "b"]);
    assert_eq!(switches(&mut hub), NOTHING);
    hub.refresh("b");
    assert_eq!(switches(&mut hub), ["changed a -> b health-degraded"]);
    let mut hub = two(&["n1"]);
    advance_alive(&mut hub, seconds(10), &["a", "b"]);
    hub.degrade("a", refused());
    advance_alive(&mut hub, millis(14_999), &["a", "b"]);
    assert_eq!(switches(&mut hub), NOTHING);
    hub.advance(millis(1));
    assert_eq!(switches(&mut hub), ["changed a -> b health-degraded"]);
}

#[test]
fn p2_5_a_degraded_standby_serves_only_when_the_active_one_cannot() {
    let mut hub = two(&["n1"]);
    hub.degrade("b", refused());
    fail(&mut hub, "a");
    assert_eq!(switches(&mut hub), ["changed a -> b health-degraded"]);
    let mut hub = two(&["n1"]);
    hub.degrade("b", refused());
    hub.end("a");
    assert_eq!(switches(&mut hub), ["changed a -> b stream-ended"]);
    let mut hub = two(&["n1"]);
    hub.end("b");
    hub.take();
    hub.end("a");
    assert_eq!(switches(&mut hub), NOTHING, "one terminated provider is no alternate for another");
}

#[test]
fn p2_5_a_standby_that_never_showed_its_members_is_not_eligible() {
    let mut hub = Harness::new(&[("a", 10), ("b", 5)]);
    hub.show("a", members(&["n1"]));
    hub.event("b", alive());
    hub.end("a");
    assert_eq!(hub.active().as_deref(), Some("a"));
}

#[test]
fn p2_5_back_to_the_better_provider_after_ten_healthy_seconds_and_ten_since_the_switch() {
    let mut hub = two(&["n1"]);
    fail(&mut hub, "a");
    advance_alive(&mut hub, seconds(5), &["a", "b"]);
    hub.take();
    hub.refresh("a");
    advance_alive(&mut hub, millis(9_999), &["a", "b"]);
    assert_eq!(switches(&mut hub), NOTHING);
    hub.advance(millis(1));
    assert_eq!(switches(&mut hub), ["changed b -> a priority-restored"]);
}

#[test]
fn p2_5_an_interruption_begins_the_ten_seconds_anew() {
    let mut hub = two(&["n1"]);
    fail(&mut hub, "a");
    hub.refresh("a");
    advance_alive(&mut hub, seconds(9), &["a", "b"]);
    hub.degrade("a", refused());
    hub.refresh("a");
    hub.take();
    advance_alive(&mut hub, seconds(9), &["a", "b"]);
    assert_eq!(switches(&mut hub), NOTHING);
    advance_alive(&mut hub, SECOND, &["a", "b"]);
    assert_eq!(switches(&mut hub), ["changed b -> a priority-restored"]);
}

#[test]
fn p2_5_the_cooldown_counts_from_the_last_switch_also_for_a_provider_that_was_healthy_all_along() {
    let mut hub = two(&["n1"]);
    advance_alive(&mut hub, seconds(20), &["a", "b"]);
    hub.pin(Some("b")).unwrap();
    hub.pin(None).unwrap();
    hub.take();
    advance_alive(&mut hub, millis(9_999), &["a", "b"]);
    assert_eq!(switches(&mut hub), NOTHING);
    hub.advance(millis(1));
    assert_eq!(switches(&mut hub), ["changed b -> a priority-restored"]);
}

#[test]
fn p5_3_unavailable_only_when_no_provider_is_better_than_unreachable() {
    let mut hub = two(&["n1"]);
    hub.degrade("b", refused());
    fail(&mut hub, "a");
    assert_eq!(hub.gate(), PlacementGate::Open);
    calls(&hub);
    hub.degrade("b", refused());
    hub.degrade("b", refused());
    let told = calls(&hub);
    for bridge in ["supervisor", "partitions", "remoting"] {
        let gate = format!("{bridge}: gate paused (provisioning-unavailable)");
        assert_eq!(told.iter().filter(|call| **call == gate).count(), 1, "{told:?}");
    }
    assert_eq!(shown(&hub), ["n1"], "the last snapshot stays readable");
    assert_eq!(hub.latest_snapshot().unwrap_err().code(), ErrorCode::ProvisioningUnavailable);
}

#[test]
fn p5_3_recovery_of_the_same_provider_delivers_the_same_snapshot_again_without_a_change_of_provider() {
    let mut hub = one(&["n1"]);
    fail(&mut hub, "a");
    hub.take();
    hub.refresh("a");
    assert_eq!(story(&mut hub), ["health a healthy", "snapshot a: n1", "fresh", "gate open"]);
}

#[test]
fn p5_3_recovery_with_news_delivers_the_news_at_once_and_only_them() {
    // All of it within the window after the first snapshot.
    let mut hub = one(&["n1"]);
    fail(&mut hub, "a");
    hub.take();
    hub.show("a", members(&["n1", "n2"]));
    assert_eq!(story(&mut hub), ["health a healthy", "snapshot a: n1 n2", "fresh", "join n2", "gate open"]);
}

#[test]
fn p5_3_recovery_of_another_provider_is_a_switch_and_delivers_once() {
    let mut hub = two(&["n1"]);
    fail(&mut hub, "b");
    fail(&mut hub, "a");
    hub.take();
    hub.refresh("b");
    let expected = ["health b healthy", "changed a -> b health-degraded", "snapshot b: n1", "fresh", "gate open"];
    assert_eq!(story(&mut hub), expected);
}

#[test]
fn p5_3_recovery_into_an_empty_topology_stays_paused() {
    let mut hub = one(&["n1"]);
    fail(&mut hub, "a");
    hub.take();
    hub.show("a", members(&[]));
    assert_eq!(story(&mut hub), ["health a healthy", "snapshot a:", "fresh", "leave n1", "gate paused (empty)"]);
}

#[test]
fn p2_5_a_standby_that_lacks_more_than_half_is_held_for_ten_seconds_with_one_warning() {
    let mut hub = two(&TEN);
    // Not at a time at which something else is due as well.
    advance_alive(&mut hub, millis(300), &["a", "b"]);
    hub.show("b", members(&TEN[..4]));
    hub.take();
    hub.end("a");
    assert_eq!(only(&mut hub, &["changed", "warning"]), ["warning mass-loss-held"]);
    advance_alive(&mut hub, millis(9_999), &["b"]);
    assert_eq!(only(&mut hub, &["changed", "warning"]), NOTHING);
    assert_eq!(shown(&hub).len(), 10);
    hub.advance(millis(1));
    assert_eq!(only(&mut hub, &["changed", "warning"]), ["changed a -> b stream-ended"]);
    assert_eq!(hub.metrics().guard_holds, 1);
}

/// The warnings, each with the provider that it names and its detail.
fn warnings(hub: &mut Harness) -> Vec<(String, String)> {
    let named = |event: ProvisioningEvent| match event {
        ProvisioningEvent::Warning(warning) => {
            let provider = warning.error.provider().map_or_else(String::new, ToString::to_string);
            Some((provider, warning.error.detail().to_owned()))
        }
        _ => None,
    };
    hub.take().into_iter().filter_map(named).collect()
}

#[test]
fn p5_5_a_warning_of_the_guard_names_the_standby_and_says_what_it_shows() {
    let mut hub = two(&TEN);
    hub.show("b", members(&TEN[..4]));
    hub.take();
    hub.end("a");
    let expected = "it shows 4 members and lacks too many of the present ones".to_owned();
    assert_eq!(warnings(&mut hub), [("b".to_owned(), expected)]);

    let mut hub = two(&TEN);
    hub.show("b", members(&[]));
    hub.take();
    hub.end("a");
    let expected = "it shows no members at all, and the present provider may come back".to_owned();
    assert_eq!(warnings(&mut hub), [("b".to_owned(), expected)]);
}

#[test]
fn p5_5_a_warning_of_the_pin_names_the_pinned_provider() {
    let mut hub = two(&["n1"]);
    hub.pin(Some("b")).unwrap();
    hub.take();
    fail(&mut hub, "b");
    let named: Vec<String> = warnings(&mut hub).into_iter().map(|(provider, _)| provider).collect();
    assert_eq!(named, ["b"]);
}

#[test]
fn p2_5_a_guarded_standby_that_shrinks_again_waits_anew_and_one_that_grows_back_is_followed() {
    let mut hub = two(&TEN);
    hub.show("b", members(&TEN[..4]));
    hub.end("a");
    advance_alive(&mut hub, seconds(9), &["a", "b"]);
    hub.show("b", members(&TEN[..3]));
    hub.take();
    advance_alive(&mut hub, seconds(9), &["a", "b"]);
    assert_eq!(switches(&mut hub), NOTHING);
    hub.show("b", members(&TEN[..5]));
    assert_eq!(switches(&mut hub), ["changed a -> b stream-ended"], "half is not more than half");
}

/// Two providers that are healthy and show these members each, the first one followed.
fn beside(roles: [ProviderRole; 2], shown: [&[&str]; 2]) -> Harness {
    let mut providers = [provider("a", 2), provider("b", 1)];
    (providers[0].role, providers[1].role) = (roles[0], roles[1]);
    let mut hub = Harness::with(HarnessSettings::default(), providers);
    hub.show("a", members(shown[0]));
    hub.show("b", members(shown[1]));
    hub
}

const MIRRORS: [ProviderRole; 2] = [ProviderRole::Mirror; 2];
const WITH_FALLBACK: [ProviderRole; 2] = [ProviderRole::Mirror, ProviderRole::Fallback];

#[test]
fn p2_5_a_mirror_that_shows_mostly_others_never_replaces_the_members_of_another() {
    let mut hub = beside(MIRRORS, [&TEN[..4], &["s1", "s2"]]);
    hub.take();
    fail(&mut hub, "a");
    let told = only(&mut hub, &["snapshot", "provider", "warning"]);
    assert_eq!(told, ["warning standby-differs"], "once, and nobody is replaced");
    advance_alive(&mut hub, seconds(60), &["b"]);
    assert_eq!((hub.active().as_deref(), shown(&hub)), (Some("a"), TEN[..4].iter().map(|id| (*id).into()).collect()));
    // Whoever pins it, or removes the other, says that it is meant.
    hub.pin(Some("b")).unwrap();
    assert_eq!(shown(&hub), ["s1", "s2"]);
}

#[test]
fn p2_5_a_mirror_that_shows_half_of_the_members_and_others_beside_is_none_that_replaces() {
    let mut hub = beside(MIRRORS, [&TEN[..4], &["n2", "n3", "s1", "s2"]]);
    hub.take();
    fail(&mut hub, "a");
    assert_eq!(hub.active().as_deref(), Some("b"));
    // What lacks most, and adds nobody, is a loss: it is held, and then believed.
    let mut hub = beside(MIRRORS, [&TEN, &TEN[..2]]);
    fail(&mut hub, "a");
    assert_eq!(hub.active().as_deref(), Some("a"));
    advance_alive(&mut hub, seconds(11), &["b"]);
    assert_eq!(hub.active().as_deref(), Some("b"));
}

#[test]
fn p2_5_a_fallback_that_shows_others_takes_over_after_the_hold_and_gives_way_again_without_a_warning() {
    let mut hub = beside(WITH_FALLBACK, [&TEN[..4], &["s1", "s2"]]);
    hub.take();
    fail(&mut hub, "a");
    assert_eq!((hub.active().as_deref(), hub.metrics().guard_holds), (Some("a"), 1), "the better one may come back");
    advance_alive(&mut hub, seconds(11), &["b"]);
    assert_eq!((hub.active().as_deref(), shown(&hub)), (Some("b"), vec!["s1".to_owned(), "s2".to_owned()]));
    hub.show("a", members(&TEN[..4]));
    advance_alive(&mut hub, seconds(21), &["a", "b"]);
    assert_eq!(hub.active().as_deref(), Some("a"));
    assert_eq!(only(&mut hub, &["warning"]), NOTHING);
}

#[test]
fn p2_5_a_fallback_that_has_been_there_for_long_waits_out_a_short_outage_all_the_same() {
    let mut hub = beside(WITH_FALLBACK, [&TEN[..4], &["s1", "s2"]]);
    advance_alive(&mut hub, seconds(60), &["a", "b"]);
    hub.take();
    fail(&mut hub, "a");
    advance_alive(&mut hub, seconds(9), &["b"]);
    assert_eq!(hub.active().as_deref(), Some("a"), "it may be back in a moment");
    hub.show("a", members(&TEN[..4]));
    advance_alive(&mut hub, seconds(60), &["a", "b"]);
    assert_eq!((hub.active().as_deref(), switches(&mut hub)), (Some("a"), Vec::new()), "nothing has moved");
    fail(&mut hub, "a");
    advance_alive(&mut hub, seconds(11), &["b"]);
    assert_eq!(hub.active().as_deref(), Some("b"));
}

#[test]
fn p2_4_an_empty_fallback_never_replaces_members_either() {
    let mut hub = beside(WITH_FALLBACK, [&TEN[..4], &[]]);
    hub.take();
    fail(&mut hub, "a");
    advance_alive(&mut hub, seconds(60), &["b"]);
    assert_eq!(hub.active().as_deref(), Some("a"));
    let advice = |event| match event {
        ProvisioningEvent::Warning(warning) => Some(warning.error.advice().to_string()),
        _ => None,
    };
    let told: Vec<String> = hub.take().into_iter().filter_map(advice).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("register members with it"), "{told:?}");
    hub.pin(Some("b")).unwrap();
    assert_eq!(hub.active().as_deref(), Some("b"), "as the advice says");
}

#[test]
fn p2_5_a_standby_that_shows_others_is_told_once_before_it_is_needed_and_a_fallback_is_not() {
    for (roles, expected) in [(MIRRORS, vec!["warning standby-differs"]), (WITH_FALLBACK, vec![])] {
        let mut hub = beside(roles, [&TEN[..4], &["s1", "s2"]]);
        advance_alive(&mut hub, millis(9_900), &["a", "b"]);
        assert_eq!(only(&mut hub, &["warning"]), NOTHING, "it may only be about to begin");
        advance_alive(&mut hub, seconds(30), &["a", "b"]);
        assert_eq!(only(&mut hub, &["warning"]), expected);
        // Another role is another meaning.
        let mut providers = [provider("a", 2), provider("b", 1)];
        providers[1].role = ProviderRole::Fallback;
        hub.reconfigure(providers);
        assert_eq!(hub.provider("b").role, ProviderRole::Fallback);
        fail(&mut hub, "a");
        advance_alive(&mut hub, seconds(11), &["b"]);
        assert_eq!(hub.active().as_deref(), Some("b"));
    }
    let mut hub = beside(MIRRORS, [&TEN[..4], &TEN[..2]]);
    advance_alive(&mut hub, seconds(30), &["a", "b"]);
    assert_eq!(only(&mut hub, &["warning"]), NOTHING, "half of the same members are no others");
}

#[test]
fn p2_5_a_switch_that_is_held_back_again_is_told_again() {
    let mut hub = beside(MIRRORS, [&TEN, &TEN[..2]]);
    hub.take();
    for holds in 1..3 {
        fail(&mut hub, "a");
        assert_eq!(only(&mut hub, &["warning"]), ["warning mass-loss-held"]);
        assert_eq!(hub.metrics().guard_holds, holds);
        hub.refresh("a");
        assert_eq!(hub.active().as_deref(), Some("a"));
    }
}

#[test]
fn p2_5_the_guard_passes_over_to_the_next_standby() {
    let mut hub = Harness::new(&[("a", 10), ("b", 5), ("c", 1)]);
    hub.show("a", members(&TEN));
    hub.show("c", members(&TEN[..9]));
    hub.show("b", members(&TEN[..2]));
    hub.take();
    hub.end("a");
    assert_eq!(only(&mut hub, &["changed", "warning"]), ["changed a -> c stream-ended"]);
}

#[test]
fn p2_4_an_empty_standby_never_replaces_a_non_empty_set() {
    let mut hub = two(&["n1", "n2"]);
    hub.show("b", members(&[]));
    hub.take();
    hub.end("a");
    assert_eq!(only(&mut hub, &["changed", "warning"]), ["warning mass-loss-held"]);
    advance_alive(&mut hub, seconds(3600), &["b"]);
    assert_eq!(only(&mut hub, &["changed", "warning", "snapshot"]), NOTHING);
    assert_eq!(shown(&hub), ["n1", "n2"]);
    hub.reconfigure([provider("b", 5)]);
    assert_eq!(switches(&mut hub), ["changed a -> b reconfigured"], "now the old one cannot come back");
    assert_eq!(hub.gate(), PlacementGate::Paused(PauseReason::Empty));
}

#[test]
fn p2_5_a_sudden_mass_loss_within_the_provider_is_believed_by_default() {
    let mut hub = one(&TEN);
    hub.show("a", members(&TEN[..1]));
    assert_eq!(only(&mut hub, &["snapshot", "warning"]), ["snapshot a: n0"]);
}

#[test]
fn p2_5_the_option_holds_a_sudden_mass_loss_for_ten_seconds_with_one_warning() {
    let mut hub = one_with(policy(|policy| policy.mass_loss_share = Some(0.5)), &TEN);
    hub.show("a", members(&TEN[..4]));
    assert_eq!(story(&mut hub), ["warning mass-loss-held"]);
    assert!(hub.explain().iter().any(|decision| decision.text.starts_with("what a shows is held back")));
    advance_alive(&mut hub, millis(9_999), &["a"]);
    assert_eq!(story(&mut hub), NOTHING);
    hub.advance(millis(1));
    assert_eq!(only(&mut hub, &["snapshot", "warning"]), ["snapshot a: n0 n1 n2 n3"]);
    assert_eq!(hub.metrics().guard_holds, 1);
}

#[test]
fn p2_5_a_mass_loss_that_heals_is_never_delivered() {
    let mut hub = one_with(policy(|policy| policy.mass_loss_share = Some(0.5)), &TEN);
    hub.show("a", members(&TEN[..4]));
    hub.advance(seconds(5));
    hub.show("a", members(&TEN));
    advance_alive(&mut hub, seconds(30), &["a"]);
    assert_eq!(story(&mut hub), ["warning mass-loss-held"]);
    hub.show("a", members(&TEN[..5]));
    assert_eq!(only(&mut hub, &["snapshot", "warning"]), ["snapshot a: n0 n1 n2 n3 n4"], "half is not more than half");
}

#[test]
fn p2_5_each_mass_loss_is_told_also_of_another_provider_than_the_one_before() {
    let settings = policy(|policy| policy.mass_loss_share = Some(0.5));
    let mut hub = two_with(settings, &TEN);
    hub.show("a", members(&TEN[..4]));
    hub.take();
    // Whoever is pinned shows that nobody was lost.
    hub.show("b", members(&TEN[..9]));
    hub.pin(Some("b")).unwrap();
    assert_eq!(only(&mut hub, &["snapshot"]), ["snapshot b: n0 n1 n2 n3 n4 n5 n6 n7 n8"]);
    hub.show("b", members(&TEN[..3]));
    hub.advance(millis(100));
    assert_eq!(only(&mut hub, &["snapshot", "warning"]), ["warning mass-loss-held"]);
    assert_eq!(hub.metrics().guard_holds, 2);
}

#[test]
fn p5_3_recovery_with_a_mass_loss_delivers_the_last_known_good_set_first() {
    let mut hub = one_with(policy(|policy| policy.mass_loss_share = Some(0.5)), &TEN[..4]);
    fail(&mut hub, "a");
    hub.take();
    hub.show("a", members(&TEN[..1]));
    assert_eq!(only(&mut hub, &["snapshot", "gate"]), ["snapshot a: n0 n1 n2 n3", "gate open"]);
    advance_alive(&mut hub, seconds(10), &["a"]);
    assert_eq!(only(&mut hub, &["snapshot"]), ["snapshot a: n0"]);
}

#[test]
fn p3_4_a_pin_holds_until_unpinned() {
    let mut hub = two(&["n1"]);
    hub.pin(Some("b")).unwrap();
    assert_eq!(switches(&mut hub), ["changed a -> b manual-override"]);
    assert!(hub.provider("b").pinned);
    advance_alive(&mut hub, seconds(100), &["a", "b"]);
    hub.degrade("b", refused());
    advance_alive(&mut hub, seconds(100), &["a", "b"]);
    assert_eq!(only(&mut hub, &["changed", "warning"]), NOTHING);
    hub.pin(None).unwrap();
    assert_eq!(switches(&mut hub), ["changed b -> a health-degraded"]);
}

#[test]
fn p3_4_an_unreachable_pin_falls_back_with_one_warning_and_returns_without_cooldown() {
    let mut hub = two(&["n1"]);
    hub.pin(Some("b")).unwrap();
    hub.take();
    fail(&mut hub, "b");
    let told = ["changed b -> a health-degraded", "warning provider-unhealthy"];
    assert_eq!(
        only(&mut hub, &["changed", "warning"]),
        ["changed b -> a health-degraded", "warning provider-unhealthy"]
    );
    advance_alive(&mut hub, seconds(3), &["a", "b"]);
    assert_eq!(only(&mut hub, &["changed", "warning"]), NOTHING);
    hub.refresh("b");
    assert_eq!(switches(&mut hub), ["changed a -> b manual-override"]);
    fail(&mut hub, "b");
    assert_eq!(only(&mut hub, &["changed", "warning"]), told, "each time anew");
}

#[test]
fn p3_4_a_pin_that_cannot_serve_from_the_start_is_warned_of_too() {
    let mut hub = Harness::new(&[("a", 10), ("b", 5)]);
    hub.show("a", members(&["n1"]));
    settle(&mut hub);
    hub.pin(Some("b")).unwrap();
    assert_eq!(story(&mut hub), ["warning provider-unhealthy"]);
    hub.show("b", members(&["n1"]));
    assert_eq!(switches(&mut hub), ["changed a -> b manual-override"]);
}

#[test]
fn p3_4_a_pin_whose_stream_ended_returns_only_when_it_shows_its_set_anew() {
    let mut hub = two(&["n1"]);
    hub.pin(Some("b")).unwrap();
    advance_alive(&mut hub, seconds(16), &["a"]);
    assert_eq!(hub.active().as_deref(), Some("a"));
    hub.take();
    reopened_after(&mut hub, "b");
    hub.event("b", alive());
    assert_eq!(switches(&mut hub), NOTHING, "its set is still the old one");
    hub.show("b", members(&["n1"]));
    assert_eq!(switches(&mut hub), ["changed a -> b manual-override"]);
}

#[test]
fn p5_5_pinning_an_unknown_provider_has_its_code() {
    let mut hub = two(&["n1"]);
    assert_eq!(hub.pin(Some("nobody")).unwrap_err().code(), ErrorCode::UnknownProvider);
    assert_eq!(story(&mut hub), NOTHING);
}

#[test]
fn p5_4_removing_the_active_provider_switches_with_reconfigured_in_one_tick() {
    let mut hub = two(&["n1"]);
    hub.reconfigure([provider("b", 5), provider("c", 20)]);
    assert_eq!(story(&mut hub), ["changed a -> b reconfigured", "snapshot b: n1"]);
    assert!(hub.is_open("c"));
    assert_eq!(hub.providers().len(), 2);
}

#[test]
fn p5_4_without_an_eligible_alternate_the_last_known_good_stays_until_one_comes() {
    let mut hub = one(&["n1", "n2"]);
    let mut replacement = provider("c", 1);
    replacement.reachable = true;
    hub.reconfigure([replacement]);
    assert_eq!(story(&mut hub), ["stale provider-unhealthy"]);
    assert_eq!((hub.active(), shown(&hub), hub.gate().is_open()), (None, vec!["n1".into(), "n2".into()], true));
    hub.show("c", members(&["n1"]));
    let expected = ["health c healthy", "changed a -> c reconfigured", "snapshot c: n1", "fresh", "leave n2"];
    assert_eq!(story(&mut hub), expected);
}

#[test]
fn p5_3_where_nobody_is_followed_any_more_what_was_shown_is_unavailable_by_the_rules_of_silence() {
    let mut hub = one(&["n1"]);
    let confirmed = hub.provider("a").last_refresh.unwrap();
    let mut replacement = provider("c", 1);
    replacement.reachable = true;
    hub.reconfigure([replacement]);
    let remote = hub.remote_nodes();
    assert_eq!((remote[0].health, remote[0].last_update), (RemoteHealth::Degraded, confirmed), "degraded at once");
    assert_eq!(story(&mut hub), ["stale provider-unhealthy"], "and Remoting is told");
    // The new one lives, and shows nothing.
    advance_alive(&mut hub, millis(13_999), &["c"]);
    assert!(hub.gate().is_open() && hub.latest_snapshot().is_ok());
    advance_alive(&mut hub, millis(1), &["c"]);
    assert_eq!(
        story(&mut hub),
        ["gate paused (provisioning-unavailable)"],
        "15 s after the last sign of the former one"
    );
    assert_eq!(hub.latest_snapshot().unwrap_err().code(), ErrorCode::ProvisioningUnavailable);
    advance_alive(&mut hub, seconds(3600), &["c"]);
    assert_eq!((hub.gate().is_open(), shown(&hub)), (false, vec!["n1".into()]));
    hub.show("c", members(&["n1"]));
    assert!(hub.gate().is_open());
}

#[test]
fn p5_4_an_edited_provider_keeps_place_pin_belief_and_health_until_it_shows_its_own() {
    let mut hub = two(&["n1", "n2"]);
    hub.show("b", members(&[]));
    hub.pin(Some("a")).unwrap();
    hub.take();
    let edited = |edition| {
        let mut edited = provider("a", 10);
        edited.edition = edition;
        edited
    };
    hub.reconfigure([edited(1), provider("b", 5)]);
    assert_eq!(story(&mut hub), NOTHING, "nobody sees it");
    assert_eq!((hub.active().as_deref(), hub.opened("a"), shown(&hub)), (Some("a"), 2, vec!["n1".into(), "n2".into()]));
    let status = hub.provider("a");
    assert_eq!((status.health, status.pinned, status.members), (ProviderHealth::Healthy, true, Some(2)));
    hub.show("a", members(&["n1", "n2"]));
    assert_eq!(story(&mut hub), NOTHING, "nor that its own set is the same");
    // Both at once: whoever answers first wins nothing.
    let mut other = provider("b", 5);
    other.edition = 1;
    hub.reconfigure([edited(2), other]);
    hub.show("b", members(&["n1", "n2"]));
    hub.advance(SECOND);
    assert_eq!((hub.active().as_deref(), switches(&mut hub)), (Some("a"), NOTHING));
}

#[test]
fn p5_4_an_edited_provider_that_fails_is_left_like_any_other() {
    let edited = || {
        let mut edited = provider("a", 10);
        edited.edition = 1;
        edited
    };
    let mut hub = two(&["n1"]);
    hub.reconfigure([edited(), provider("b", 5)]);
    hub.event("a", errored());
    assert_eq!(switches(&mut hub), ["changed a -> b stream-ended"]);
    // Or says nothing at all: its silence counts from the last sign of the one before it.
    let mut hub = two(&["n1"]);
    hub.reconfigure([edited(), provider("b", 5)]);
    advance_alive(&mut hub, millis(13_999), &["b"]);
    assert_eq!(switches(&mut hub), NOTHING);
    advance_alive(&mut hub, millis(1), &["b"]);
    assert_eq!(switches(&mut hub), ["changed a -> b timeout"]);
}

#[test]
fn p5_4_a_provider_edited_while_its_stream_is_stuck_or_waits_is_opened_at_once() {
    let edited = |edition| {
        let mut edited = provider("a", 10);
        edited.edition = edition;
        edited
    };
    let mut hub = one(&["n1"]);
    hub.set_stuck(true);
    hub.advance(seconds(15));
    assert_eq!((hub.is_open("a"), hub.opened("a")), (false, 1), "silent, given up, and its thread has not ended");
    hub.reconfigure([edited(1)]);
    assert_eq!((hub.is_open("a"), hub.opened("a")), (true, 2));
    hub.release_stuck();
    assert!(hub.is_open("a"), "the end of the former thread is not that of the present one");
    hub.event("a", errored());
    assert!(!hub.is_open("a"), "it waits for the backoff");
    hub.reconfigure([edited(2)]);
    assert_eq!((hub.is_open("a"), hub.opened("a")), (true, 3));
}

#[test]
fn p5_4_a_replacement_that_was_never_heard_of_leaves_placement_paused_until_it_shows_its_set() {
    let mut hub = one(&["n1"]);
    hub.reconfigure([provider("c", 1)]);
    assert_eq!(story(&mut hub), ["stale provider-unhealthy", "gate paused (provisioning-unavailable)"]);
    assert_eq!(shown(&hub), ["n1"]);
    hub.event("c", alive());
    assert_eq!(only(&mut hub, &["gate", "snapshot"]), NOTHING, "what the removed one showed does not come back");
    hub.show("c", members(&["n1"]));
    assert_eq!(
        only(&mut hub, &["changed", "snapshot", "gate"]),
        ["changed a -> c reconfigured", "snapshot c: n1", "gate open"]
    );
}

#[test]
fn p5_4_an_unchanged_provider_keeps_its_stream_and_health_and_a_new_priority_counts() {
    let mut hub = two(&["n1"]);
    advance_alive(&mut hub, seconds(10), &["a", "b"]);
    hub.take();
    hub.reconfigure([provider("a", 1), provider("b", 5)]);
    assert_eq!(switches(&mut hub), ["changed a -> b priority-restored"]);
    assert_eq!((hub.opened("a"), hub.opened("b")), (1, 1));
}

#[test]
fn p5_4_what_a_removed_provider_still_says_is_ignored() {
    let mut hub = two(&["n1"]);
    hub.reconfigure([provider("b", 5)]);
    hub.take();
    hub.late_event("a", ProviderEvent::Snapshot { members: members(&[]), revision: Revision::NONE, skipped: 0 });
    hub.event("a", errored());
    assert_eq!(story(&mut hub), NOTHING);
}

#[test]
fn p2_1_data_older_than_max_stale_is_unavailable_with_its_code_and_fresh_data_ends_that() {
    let mut hub = one_with(policy(|policy| policy.max_stale = Some(seconds(60))), &["n1"]);
    hub.refresh("a");
    advance_alive(&mut hub, millis(59_999), &["a"]);
    assert_eq!(story(&mut hub), NOTHING);
    hub.advance(millis(1));
    assert_eq!(story(&mut hub), ["gate paused (data-stale)"]);
    assert_eq!(hub.latest_snapshot().unwrap_err().code(), ErrorCode::DataStale);
    hub.refresh("a");
    assert_eq!(story(&mut hub), ["snapshot a: n1", "gate open"]);
}

#[test]
fn p2_1_data_ages_also_after_its_provider_was_removed() {
    let mut hub = one_with(policy(|policy| policy.max_stale = Some(seconds(60))), &["n1"]);
    let mut replacement = provider("c", 1);
    replacement.reachable = true;
    hub.reconfigure([replacement]);
    advance_alive(&mut hub, seconds(60), &["c"]);
    assert_eq!(hub.gate(), PlacementGate::Paused(PauseReason::Unavailable(ErrorCode::DataStale)));
}

#[test]
fn p2_5_a_cold_standby_watches_only_while_it_is_needed() {
    let mut hub =
        Harness::with(policy(|policy| policy.standby = StandbyMode::Cold), [provider("a", 10), provider("b", 5)]);
    assert!(hub.is_open("a") && hub.is_open("b"), "nobody is healthy yet");
    hub.show("b", members(&["n1"]));
    hub.show("a", members(&["n1"]));
    assert_eq!((hub.active().as_deref(), hub.is_open("b")), (Some("a"), false));
    assert_eq!(only(&mut hub, &["health b"]), ["health b healthy", "health b unreachable"]);
    assert_eq!(hub.provider("b").members, None, "what it showed ages unwatched");
    hub.end("a");
    assert!(hub.is_open("b") && hub.opened("b") == 2);
    assert_eq!(hub.active().as_deref(), Some("a"));
    hub.take();
    hub.show("b", members(&["n1"]));
    assert_eq!(switches(&mut hub), ["changed a -> b stream-ended"]);
    reopened_after(&mut hub, "a");
    hub.show("a", members(&["n1"]));
    advance_alive(&mut hub, millis(9_999), &["a", "b"]);
    assert!(hub.is_open("b"), "it is followed until the better one has held");
    hub.advance(millis(1));
    assert_eq!((hub.active().as_deref(), hub.is_open("b")), (Some("a"), false));
}

#[test]
fn p2_5_a_stuck_silent_stream_is_not_opened_again_until_its_thread_has_ended() {
    let mut hub = one(&["n1"]);
    hub.set_stuck(true);
    hub.advance(seconds(3600));
    assert_eq!((hub.is_open("a"), hub.opened("a")), (false, 1));
    assert_eq!(hub.metrics().stream_interruptions, 1, "given up once");
    hub.end_thread("a");
    let pause = reopened_after(&mut hub, "a");
    assert!((SECOND..=seconds(2)).contains(&pause), "{pause:?}");
    assert_eq!(hub.opened("a"), 2);
}

#[test]
fn p2_5_what_a_stream_says_after_it_was_given_up_is_ignored() {
    let mut hub = one(&["n1"]);
    hub.set_stuck(true);
    hub.advance(seconds(20));
    hub.take();
    let late = || ProviderEvent::Snapshot { members: members(&["n9"]), revision: Revision::NONE, skipped: 0 };
    hub.late_event("a", late());
    assert_eq!((story(&mut hub), shown(&hub)), (NOTHING, vec!["n1".to_owned()]));
    hub.end_thread("a");
    reopened_after(&mut hub, "a");
    hub.late_event("a", late());
    hub.late_event("a", errored());
    assert_eq!((story(&mut hub), shown(&hub)), (NOTHING, vec!["n1".to_owned()]));
    assert_eq!(hub.provider("a").health, ProviderHealth::Unreachable);
}

#[test]
fn p2_5_a_thread_that_ends_without_a_word_is_an_end_with_a_code() {
    let mut hub = two(&["n1"]);
    hub.end_thread("a");
    let events = hub.take();
    let ProvisioningEvent::StreamEnded(end) = &events[0] else { panic!("{events:?}") };
    let ProviderTermination::Errored { reason } = &end.termination else { panic!() };
    assert_eq!((reason.code(), hub.active().as_deref()), (ErrorCode::StreamFailed, Some("b")));
    assert!(reopened_after(&mut hub, "a") <= seconds(2));
}

#[test]
fn p2_5_a_stream_that_is_opened_and_says_nothing_is_given_up_after_fifteen_seconds() {
    let mut hub = Harness::new(&[("a", 1)]);
    hub.advance(millis(14_300));
    hub.pin(None).unwrap(); // A tick in between, so that the hub's looks at the time do not meet the deadline by chance.
    hub.advance(millis(699));
    assert_eq!((hub.is_open("a"), story(&mut hub)), (true, NOTHING));
    hub.advance(millis(1));
    assert_eq!((hub.is_open("a"), story(&mut hub)), (false, vec!["ended a".to_owned()]));
}

#[test]
fn p2_5_a_standstill_of_more_than_five_seconds_restarts_the_silence_windows() {
    let mut hub = two(&["n1"]);
    hub.stand_still(seconds(60));
    assert_eq!(story(&mut hub), NOTHING);
    advance_alive(&mut hub, millis(14_999), &["b"]);
    assert_eq!(story(&mut hub), NOTHING);
    hub.advance(millis(1));
    assert_eq!(switches(&mut hub), ["changed a -> b timeout"]);
}

#[test]
fn p2_5_a_gap_of_five_seconds_is_no_standstill() {
    let mut hub = two(&["n1"]);
    hub.advance(seconds(9));
    hub.event("b", alive());
    hub.stand_still(seconds(5));
    assert_eq!(switches(&mut hub), ["changed a -> b timeout"]);
}

#[test]
fn p2_5_a_standstill_does_not_make_overdue_data_fresh() {
    let mut declared = provider("a", 10);
    declared.refresh_interval = Some(seconds(10));
    let mut hub = Harness::with(testkit::HarnessSettings::default(), [declared]);
    hub.show("a", members(&["n1"]));
    advance_alive(&mut hub, seconds(21), &["a"]);
    assert_eq!(hub.provider("a").health, ProviderHealth::Degraded);
    hub.stand_still(seconds(60));
    assert_eq!(hub.provider("a").health, ProviderHealth::Degraded);
    hub.refresh("a");
    hub.stand_still(seconds(60));
    assert_eq!(hub.provider("a").health, ProviderHealth::Healthy, "fresh data does not become overdue by it");
}

#[test]
fn p2_5_in_member_mode_a_provider_that_does_not_show_us_ranks_below_those_that_do() {
    let mut settings = testkit::HarnessSettings::default();
    settings.local_node = Some(id("me"));
    let [mut a, mut b] = [provider("a", 10), provider("b", 5)];
    (a.registers, b.registers) = (true, true);
    let mut hub = Harness::with(settings, [a, b]);
    hub.show("b", members(&["me", "n1"]));
    hub.show("a", members(&["n1"]));
    hub.advance(SECOND);
    assert_eq!(switches(&mut hub), ["changed -> b initial"]);
    advance_alive(&mut hub, seconds(20), &["a", "b"]);
    hub.show("a", members(&["me", "n1"]));
    assert_eq!(switches(&mut hub), ["changed b -> a priority-restored"]);
}

#[test]
fn p2_5_a_stream_opened_just_before_a_standstill_is_not_given_up_for_it() {
    let mut hub = Harness::new(&[("a", 1)]);
    hub.advance(seconds(1));
    hub.stand_still(seconds(60));
    assert!(hub.is_open("a") && hub.opened("a") == 1);
    hub.advance(seconds(14));
    assert!(hub.is_open("a"), "silence counts from the end of the standstill");
    hub.advance(seconds(1));
    assert!(!hub.is_open("a"));
}
