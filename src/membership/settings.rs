//! What can be set of the protocol, and what is set where nothing else is said.

use std::time::Duration;

use super::isolation::Limits;
use super::message::DATAGRAM;
use super::probe::Pace;
use super::suspicion::Bounds;

/// How much longer a lone accuser's suspicion lasts than one that all agree upon (memberlist's `SuspicionMaxTimeoutMult`).
const LONGEST_TIMES: u32 = 6;

/// The settings of a member.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    /// The cluster's name: members of another one are not heard.
    pub(crate) label: String,
    /// How long a probe takes; one begins in each period.
    pub(crate) probe: Pace,
    /// How many others are asked for help with a probe.
    pub(crate) relays: usize,
    /// How often rumours are sent while there are any.
    pub(crate) gossip_interval: Duration,
    /// To how many members.
    pub(crate) gossip_fanout: usize,
    /// The shortest suspicion in a cluster of ten.
    pub(crate) suspicion: Duration,
    /// By how much it is longer for each tenfold of members: news take longer to reach everybody.
    pub(crate) suspicion_per_digit: Duration,
    pub(crate) isolation: Limits,
    /// How often a seed, or somebody who is dead, is asked whether it is there.
    pub(crate) seeds_interval: Duration,
    /// The least time between two exchanges.
    pub(crate) exchange_interval: Duration,
    /// For how long after the last agreement with anybody a difference is taken for news under way.
    pub(crate) exchange_excused: Duration,
    /// The first quarantine of a node that died; each of those that follow soon is twice as long, up to 10 min.
    pub(crate) quarantine: Duration,
    /// Whether another life of a node waits for the quarantine of the former one.
    pub(crate) quarantine_new_lives: bool,
    /// How many are let in each second at the most; others are sent to other members.
    pub(crate) joins_per_second: usize,
    /// The most bytes of a datagram.
    pub(crate) datagram: usize,
    /// How many observers may wait for an answer at a time; others are sent to other members.
    pub(crate) observers: usize,
}

impl Settings {
    /// For members in one data centre.
    pub(crate) fn lan(label: &str) -> Self {
        Self {
            label: label.to_owned(),
            probe: Pace { direct: Duration::from_millis(500), period: Duration::from_secs(1) },
            relays: 3,
            gossip_interval: Duration::from_millis(200),
            gossip_fanout: 3,
            suspicion: Duration::from_millis(3000),
            suspicion_per_digit: Duration::from_millis(500),
            isolation: Limits { begins: Duration::from_millis(2500), longest: Some(Duration::from_secs(60)) },
            seeds_interval: Duration::from_secs(5),
            exchange_interval: Duration::from_secs(1),
            exchange_excused: Duration::from_secs(3),
            quarantine: Duration::from_secs(10),
            quarantine_new_lives: true,
            joins_per_second: 200,
            datagram: DATAGRAM,
            observers: 256,
        }
    }

    /// For members in several data centres, far from each other: all takes longer (memberlist's `DefaultWANConfig`).
    pub(crate) fn wan(label: &str) -> Self {
        Self {
            probe: Pace { direct: Duration::from_secs(3), period: Duration::from_secs(5) },
            gossip_interval: Duration::from_millis(500),
            gossip_fanout: 4,
            suspicion: Duration::from_secs(15),
            suspicion_per_digit: Duration::from_millis(2500),
            isolation: Limits { begins: Duration::from_millis(12_500), longest: Some(Duration::from_secs(300)) },
            seeds_interval: Duration::from_secs(20),
            exchange_interval: Duration::from_secs(3),
            exchange_excused: Duration::from_secs(10),
            quarantine: Duration::from_secs(30),
            ..Self::lan(label)
        }
    }

    /// For members on one machine: all takes less time (memberlist's `DefaultLocalConfig`).
    pub(crate) fn local(label: &str) -> Self {
        Self {
            probe: Pace { direct: Duration::from_millis(200), period: Duration::from_millis(500) },
            gossip_interval: Duration::from_millis(100),
            suspicion: Duration::from_millis(1500),
            suspicion_per_digit: Duration::from_millis(250),
            isolation: Limits { begins: Duration::from_millis(1250), longest: Some(Duration::from_secs(30)) },
            seeds_interval: Duration::from_secs(2),
            exchange_interval: Duration::from_millis(500),
            exchange_excused: Duration::from_millis(1500),
            quarantine: Duration::from_secs(5),
            ..Self::lan(label)
        }
    }

    /// The bounds of a suspicion among so many members where so large a share of direct probes is lost.
    pub(super) fn bounds(&self, members: usize, lost: f64) -> Bounds {
        let tenfolds = (members.max(10) as f64).log10() - 1.0;
        let shortest = self.suspicion + self.suspicion_per_digit.mul_f64(tenfolds);
        // Of those who would confirm or contradict so many are lost, too: at a half it takes three times as long.
        let shortest = shortest.mul_f64(1.0 + 4.0 * lost.clamp(0.0, 0.5));
        Bounds { shortest, longest: shortest * LONGEST_TIMES }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m2_4_suspicions_last_longer_in_larger_clusters_and_where_much_is_lost() {
        let lan = Settings::lan("prod");
        let shortest = |members, lost| lan.bounds(members, lost).shortest.as_millis();
        assert_eq!(
            (shortest(1, 0.0), shortest(10, 0.0), shortest(100, 0.0), shortest(1000, 0.0)),
            (3000, 3000, 3500, 4000)
        );
        assert_eq!((shortest(100, 0.25), shortest(100, 0.5), shortest(100, 1.0)), (7000, 10_500, 10_500));
        assert_eq!(lan.bounds(100, 0.0).longest.as_millis(), 21_000);
    }

    #[test]
    fn m2_4_in_each_profile_a_node_is_isolated_before_anybody_can_be_blamed_and_a_probe_has_time_for_help() {
        let [local, lan, wan] = [Settings::local("prod"), Settings::lan("prod"), Settings::wan("prod")];
        for settings in [&local, &lan, &wan] {
            assert_eq!(settings.label, "prod");
            assert!(settings.isolation.begins < settings.bounds(1, 0.0).shortest);
            assert!(settings.isolation.begins > settings.probe.period * 2, "a lost probe is no silence");
            assert!(settings.probe.direct < settings.probe.period);
            assert!(settings.exchange_excused > settings.exchange_interval);
        }
        let dead = |settings: &Settings| settings.probe.period + settings.bounds(100, 0.0).shortest;
        assert!(dead(&local) * 2 <= dead(&lan) && dead(&lan) * 4 <= dead(&wan));
    }
}
