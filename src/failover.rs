//! Which provider is followed: the policy, the health of each provider, and the choice among them.
//!
//! All of it is pure: events and the current time in, health and decisions out. What a switch delivers is the hub's.

mod controller;
mod flap_damping;
mod health;

pub(crate) use controller::{Candidate, Choice, FailoverController, Guard, SlotKey};
pub use flap_damping::FlapDamping;
pub(crate) use health::HealthTracker;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backoff;
use crate::error::{ErrorCode, ProvisioningError};
use crate::text;

/// Whether standbys watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(all(test, feature = "config"), derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum StandbyMode {
    /// All enabled providers watch at once, so that a failover is immediate.
    #[default]
    Hot,
    /// A provider watches only while none of higher rank is healthy: fewer connections, slower failover.
    Cold,
}

/// When health changes and when another provider is followed. Every duration can be set; the defaults suit most.
///
/// Made from the defaults, setting by setting, or read from a configuration, in which durations are texts, what is left
/// out has its default, and what is switched off is `off` (or `null`):
///
/// ```
/// use std::time::Duration;
/// use cluster_provisioning::FailoverPolicy;
///
/// let made = FailoverPolicy::default().silence_timeout(Duration::from_secs(10)).mass_loss_share(0.5);
/// let read: FailoverPolicy =
///     serde_json::from_str(r#"{"silence_timeout": "10s", "mass_loss_share": 0.5}"#).expect("a policy");
/// assert_eq!(made, read);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(all(test, feature = "config"), derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct FailoverPolicy {
    /// Without any event for this long a provider is Unreachable. Default 15 s.
    #[serde(with = "text::DurationText")]
    pub silence_timeout: Duration,
    /// This many errors in a row make a provider Unreachable. Default 3.
    pub max_errors: u32,
    /// The first pause before a terminated stream is opened again; each further one is twice as long, and each is
    /// multiplied by a random factor between 0.5 and 1. The providers that come along pace what they ask again by it
    /// too. Default 2 s.
    #[serde(with = "text::DurationText")]
    pub backoff_initial: Duration,
    /// The longest such pause. Default 30 s.
    #[serde(with = "text::DurationText")]
    pub backoff_max: Duration,
    /// A provider that was healthy for this long begins again with the first pause. Default 30 s.
    #[serde(with = "text::DurationText")]
    pub backoff_reset: Duration,
    /// The least time between a switch and a voluntary one after it. Default 10 s.
    #[serde(with = "text::DurationText")]
    pub cooldown: Duration,
    /// A better provider must have been healthy for this long before it is followed again. Default 10 s.
    #[serde(with = "text::DurationText")]
    pub failback_hold: Duration,
    /// The provider followed may be Degraded for this long before a healthy standby takes over. Default 15 s.
    #[serde(with = "text::DurationText")]
    pub degraded_grace: Duration,
    /// At the start a lower provider waits this long for one of higher priority that has not answered yet, or does not show
    /// the local node yet where the lower one does. Default 1 s.
    #[serde(with = "text::DurationText")]
    pub initial_grace: Duration,
    /// A standby that lacks more than this share of the current members is not followed until its set has not shrunk
    /// for [`guard_hold`](Self::guard_hold). 0 to 1; default 0.5.
    pub guard_share: f64,
    /// See [`guard_share`](Self::guard_share). Default 10 s.
    #[serde(with = "text::DurationText")]
    pub guard_hold: Duration,
    /// The same guard against a sudden loss within the provider followed: a set that lacks more than this share of the
    /// current members is held back for [`guard_hold`](Self::guard_hold). Off (`None`) by default.
    #[serde(with = "text::OrOff::<f64>")]
    pub mass_loss_share: Option<f64>,
    /// Holds the leaves of members that flap within the provider followed. On by default, as [`FlapDamping`] says; `None`
    /// (`off` in a configuration) switches it off, and every leave is told at once.
    #[serde(with = "text::OrOff::<FlapDamping>")]
    pub flap_damping: Option<FlapDamping>,
    /// Data older than this counts as unavailable. Off (`None`) by default: last known good data serves for ever.
    #[serde(with = "text::OrOff::<text::Pause>")]
    pub max_stale: Option<Duration>,
    /// Whether standbys watch. Default: hot.
    pub standby: StandbyMode,
}

impl Default for FailoverPolicy {
    fn default() -> Self {
        Self {
            silence_timeout: Duration::from_secs(15),
            max_errors: 3,
            backoff_initial: backoff::FIRST,
            backoff_max: backoff::LONGEST,
            backoff_reset: Duration::from_secs(30),
            cooldown: Duration::from_secs(10),
            failback_hold: Duration::from_secs(10),
            degraded_grace: Duration::from_secs(15),
            initial_grace: Duration::from_secs(1),
            guard_share: 0.5,
            guard_hold: Duration::from_secs(10),
            mass_loss_share: None,
            flap_damping: Some(FlapDamping::default()),
            max_stale: None,
            standby: StandbyMode::Hot,
        }
    }
}

/// Each setting; what is out of range is refused when the service starts.
impl FailoverPolicy {
    /// Sets [`silence_timeout`](#structfield.silence_timeout).
    #[must_use]
    pub fn silence_timeout(mut self, silence_timeout: Duration) -> Self {
        self.silence_timeout = silence_timeout;
        self
    }

    /// Sets [`max_errors`](#structfield.max_errors).
    #[must_use]
    pub fn max_errors(mut self, max_errors: u32) -> Self {
        self.max_errors = max_errors;
        self
    }

    /// Sets [`backoff_initial`](#structfield.backoff_initial).
    #[must_use]
    pub fn backoff_initial(mut self, backoff_initial: Duration) -> Self {
        self.backoff_initial = backoff_initial;
        self
    }

    /// Sets [`backoff_max`](#structfield.backoff_max).
    #[must_use]
    pub fn backoff_max(mut self, backoff_max: Duration) -> Self {
        self.backoff_max = backoff_max;
        self
    }

    /// Sets [`backoff_reset`](#structfield.backoff_reset).
    #[must_use]
    pub fn backoff_reset(mut self, backoff_reset: Duration) -> Self {
        self.backoff_reset = backoff_reset;
        self
    }

    /// Sets [`cooldown`](#structfield.cooldown).
    #[must_use]
    pub fn cooldown(mut self, cooldown: Duration) -> Self {
        self.cooldown = cooldown;
        self
    }

    /// Sets [`failback_hold`](#structfield.failback_hold).
    #[must_use]
    pub fn failback_hold(mut self, failback_hold: Duration) -> Self {
        self.failback_hold = failback_hold;
        self
    }

    /// Sets [`degraded_grace`](#structfield.degraded_grace).
    #[must_use]
    pub fn degraded_grace(mut self, degraded_grace: Duration) -> Self {
        self.degraded_grace = degraded_grace;
        self
    }

    /// Sets [`initial_grace`](#structfield.initial_grace).
    #[must_use]
    pub fn initial_grace(mut self, initial_grace: Duration) -> Self {
        self.initial_grace = initial_grace;
        self
    }

    /// Sets [`guard_share`](#structfield.guard_share).
    #[must_use]
    pub fn guard_share(mut self, guard_share: f64) -> Self {
        self.guard_share = guard_share;
        self
    }

    /// Sets [`guard_hold`](#structfield.guard_hold).
    #[must_use]
    pub fn guard_hold(mut self, guard_hold: Duration) -> Self {
        self.guard_hold = guard_hold;
        self
    }

    /// Switches [`mass_loss_share`](#structfield.mass_loss_share) on.
    #[must_use]
    pub fn mass_loss_share(mut self, mass_loss_share: f64) -> Self {
        self.mass_loss_share = Some(mass_loss_share);
        self
    }

    /// Sets [`flap_damping`](#structfield.flap_damping), or with `None` switches it off.
    #[must_use]
    pub fn flap_damping(mut self, flap_damping: impl Into<Option<FlapDamping>>) -> Self {
        self.flap_damping = flap_damping.into();
        self
    }

    /// Switches [`max_stale`](#structfield.max_stale) on.
    #[must_use]
    pub fn max_stale(mut self, max_stale: Duration) -> Self {
        self.max_stale = Some(max_stale);
        self
    }

    /// Sets [`standby`](#structfield.standby).
    #[must_use]
    pub fn standby(mut self, standby: StandbyMode) -> Self {
        self.standby = standby;
        self
    }
}

impl FailoverPolicy {
    /// Checks the policy.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidValue`], naming the field: a silence timeout under 5 s (streams give a sign of life every
    /// 5 s) or over a day, no errors allowed at all, a first pause of zero or over the longest, shares outside 0 to 1,
    /// a damping that would hold the first leave or wait longer than its window, or any duration over a day.
    pub fn validate(&self) -> Result<(), ProvisioningError> {
        let day = Duration::from_secs(24 * 60 * 60);
        let refuse = |field: &'static str, reason: String| {
            Err(ProvisioningError::new(ErrorCode::InvalidValue, "validating the failover policy", reason)
                .with_field(field))
        };
        if self.silence_timeout < crate::provider::SIGN_OF_LIFE {
            return refuse("silence_timeout", format!("{:?} is under 5 s", self.silence_timeout));
        }
        if self.max_errors == 0 {
            return refuse("max_errors", "0 would make every provider unreachable".into());
        }
        if self.backoff_initial.is_zero() || self.backoff_initial > self.backoff_max {
            return refuse("backoff_initial", format!("{:?} is zero or over backoff_max", self.backoff_initial));
        }
        let durations = [
            ("silence_timeout", self.silence_timeout),
            ("backoff_max", self.backoff_max),
            ("backoff_reset", self.backoff_reset),
            ("cooldown", self.cooldown),
            ("failback_hold", self.failback_hold),
            ("degraded_grace", self.degraded_grace),
            ("initial_grace", self.initial_grace),
            ("guard_hold", self.guard_hold),
        ];
        for (field, duration) in durations {
            if duration > day {
                return refuse(field, format!("{duration:?} is over a day"));
            }
        }
        for (field, share) in [("guard_share", Some(self.guard_share)), ("mass_loss_share", self.mass_loss_share)] {
            if share.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
                return refuse(field, format!("{share:?} is outside 0 to 1"));
            }
        }
        if let Some(FlapDamping { leaves, within, hold }) = self.flap_damping {
            if leaves == 0 {
                return refuse("flap_damping.leaves", "0 would hold the first leave of everyone".into());
            }
            if within > day {
                return refuse("flap_damping.within", format!("{within:?} is over a day"));
            }
            if hold.is_zero() || hold > within {
                return refuse("flap_damping.hold", format!("{hold:?} is zero or over flap_damping.within"));
            }
        }
        if self.max_stale.is_some_and(|limit| limit.is_zero()) {
            return refuse("max_stale", "zero would make all data stale".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    const BEYOND: Duration = Duration::from_secs(24 * 60 * 60 + 1);

    fn judge(adapt: impl FnOnce(&mut FailoverPolicy)) -> Option<String> {
        let mut policy = FailoverPolicy::default();
        adapt(&mut policy);
        let error = policy.validate().err()?;
        assert_eq!(error.code(), ErrorCode::InvalidValue);
        error.field().map(str::to_owned)
    }

    #[test]
    fn p1_1_a_policy_out_of_range_is_refused_with_the_field() {
        let refused = |field: &str, adapt: &dyn Fn(&mut FailoverPolicy)| {
            assert_eq!(judge(adapt).as_deref(), Some(field));
        };
        refused("silence_timeout", &|policy| policy.silence_timeout = Duration::from_millis(4_999));
        refused("silence_timeout", &|policy| policy.silence_timeout = BEYOND);
        refused("max_errors", &|policy| policy.max_errors = 0);
        refused("backoff_initial", &|policy| policy.backoff_initial = Duration::ZERO);
        refused("backoff_initial", &|policy| policy.backoff_initial = policy.backoff_max + SECOND);
        refused("backoff_max", &|policy| policy.backoff_max = BEYOND);
        refused("backoff_reset", &|policy| policy.backoff_reset = BEYOND);
        refused("cooldown", &|policy| policy.cooldown = BEYOND);
        refused("failback_hold", &|policy| policy.failback_hold = BEYOND);
        refused("degraded_grace", &|policy| policy.degraded_grace = BEYOND);
        refused("initial_grace", &|policy| policy.initial_grace = BEYOND);
        refused("guard_hold", &|policy| policy.guard_hold = BEYOND);
        for share in [-0.01, 1.01, f64::NAN, f64::INFINITY] {
            refused("guard_share", &|policy| policy.guard_share = share);
            refused("mass_loss_share", &|policy| policy.mass_loss_share = Some(share));
        }
        let damping = |change: fn(FlapDamping) -> FlapDamping| {
            move |policy: &mut FailoverPolicy| policy.flap_damping = Some(change(FlapDamping::default()))
        };
        refused("flap_damping.leaves", &damping(|damping| damping.leaves(0)));
        refused("flap_damping.within", &damping(|damping| damping.within(BEYOND)));
        refused("flap_damping.hold", &damping(|damping| damping.hold(Duration::ZERO)));
        refused("flap_damping.hold", &damping(|damping| damping.within(SECOND).hold(SECOND * 2)));
        refused("max_stale", &|policy| policy.max_stale = Some(Duration::ZERO));
    }

    #[test]
    fn p1_1_the_defaults_and_the_ends_of_the_ranges_are_accepted() {
        assert_eq!(judge(|_| {}), None);
        assert_eq!(judge(|policy| policy.silence_timeout = 5 * SECOND), None);
        assert_eq!(judge(|policy| policy.max_errors = 1), None);
        assert_eq!(judge(|policy| policy.backoff_initial = policy.backoff_max), None);
        assert_eq!(judge(|policy| policy.max_stale = Some(SECOND)), None);
        for share in [0.0, 1.0] {
            assert_eq!(judge(|policy| policy.guard_share = share), None);
            assert_eq!(judge(|policy| policy.mass_loss_share = Some(share)), None);
        }
        let whole = FlapDamping::default().leaves(1).within(DAY).hold(DAY);
        assert_eq!(judge(|policy| policy.flap_damping = Some(whole)), None);
        assert_eq!(judge(|policy| policy.flap_damping = None), None);
        let longest = |policy: &mut FailoverPolicy| {
            policy.silence_timeout = DAY;
            policy.backoff_max = DAY;
            policy.cooldown = DAY;
        };
        assert_eq!(judge(longest), None);
    }
}
