//! What a definition of the kind `gossip` says.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::parameters as the;
use crate::error::{ErrorCode, ProvisioningError};
use crate::membership::transport::everywhere;
use crate::membership::{Place, Settings};
use crate::provider::{Credential, ProviderDescriptor};

/// The port where a definition names none (memberlist's, which operators know).
pub(super) const PORT: u16 = 7946;
/// The most seeds.
const SEEDS: usize = 64;
/// A dead member should be found within somebody's patience.
const LONGEST_SUSPICION: Duration = Duration::from_secs(600);
/// The longest name of a host (RFC 1035).
const HOST: usize = 253;

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Config {
    pub(super) seeds: Vec<Place>,
    pub(super) settings: Settings,
    /// Where a member listens; the address of the family of the one that is advertised.
    bind: (Option<IpAddr>, u16),
    pub(super) advertise_port: Option<u16>,
    pub(super) counts: bool,
    /// Where the cluster's keys are; without them nothing is encrypted.
    pub(super) keys: Credential,
}

impl Config {
    /// # Errors
    /// A code of the validation category, naming the field.
    pub(super) fn read(descriptor: &ProviderDescriptor) -> Result<Self, ProvisioningError> {
        the::ALL.check(descriptor)?;
        let label = descriptor.required(the::LABEL.name)?;
        let mut settings = match the::PROFILE.choice(descriptor)? {
            Some("local") => Settings::local(label),
            Some("wan") => Settings::wan(label),
            _ => Settings::lan(label),
        };
        settings.suspicion = the::SUSPICION.duration_or(descriptor, settings.suspicion)?;
        settings.quarantine = the::QUARANTINE.duration_or(descriptor, settings.quarantine)?;
        settings.quarantine_new_lives = the::QUARANTINE_NEW_LIVES.is_on(descriptor)?.unwrap_or(true);
        settings.seeds_interval = the::SEEDS_INTERVAL.duration_or(descriptor, settings.seeds_interval)?;
        settings.observers = the::OBSERVERS.number(descriptor)? as usize;
        settings.isolation.longest = the::ISOLATED_MAX.duration_or_off(descriptor, settings.isolation.longest)?;
        if settings.suspicion <= settings.isolation.begins || settings.suspicion > LONGEST_SUSPICION {
            // Whoever hears from nobody has to notice it before it can blame anybody.
            let least = settings.isolation.begins;
            let reason = format!("with this profile it is more than {least:?}, and {LONGEST_SUSPICION:?} at the most");
            return Err(descriptor.refuse(ErrorCode::InvalidValue, the::SUSPICION.name, reason));
        }
        let advertise_port = the::ADVERTISE_PORT.given(descriptor)?.map(|given| match given.parse() {
            Ok(port) if port > 0 => Ok(port),
            _ => {
                let reason = format!("{given:?} is no port between 1 and 65535");
                Err(descriptor.refuse(ErrorCode::InvalidValue, the::ADVERTISE_PORT.name, reason))
            }
        });
        let advertise_port = advertise_port.transpose()?;
        Ok(Self {
            seeds: seeds(descriptor)?,
            settings,
            bind: bind(descriptor)?,
            advertise_port,
            counts: the::METRICS.is_on(descriptor)?.unwrap_or(true),
            keys: descriptor.credential.clone(),
        })
    }

    /// Where a member listens whose node has that address.
    pub(super) fn bind(&self, advertised: &str) -> SocketAddr {
        let (address, port) = self.bind;
        SocketAddr::new(address.unwrap_or_else(|| everywhere(advertised)), port)
    }

    /// What a member cannot change while it runs: all but its seeds.
    pub(super) fn is_same_member(&self, other: &Self) -> bool {
        let without_seeds = |config: &Self| Self { seeds: Vec::new(), ..config.clone() };
        without_seeds(self) == without_seeds(other)
    }
}

fn bind(descriptor: &ProviderDescriptor) -> Result<(Option<IpAddr>, u16), ProvisioningError> {
    let Some(given) = the::BIND.given(descriptor)? else { return Ok((None, PORT)) };
    if let Ok(address) = given.parse::<SocketAddr>() {
        return Ok((Some(address.ip()), address.port()));
    }
    match given.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        Ok(address) => Ok((Some(address), PORT)),
        Err(_) => {
            let reason = format!("{given:?} is no address such as 10.0.0.1, 0.0.0.0:7946 or [::]:7946");
            Err(descriptor.refuse(ErrorCode::InvalidValue, the::BIND.name, reason))
        }
    }
}

/// The endpoints: the seeds.
fn seeds(descriptor: &ProviderDescriptor) -> Result<Vec<Place>, ProvisioningError> {
    if descriptor.endpoints.len() > SEEDS {
        let reason = format!("there are {} seeds, and {SEEDS} at the most", descriptor.endpoints.len());
        return Err(descriptor.refuse(ErrorCode::InvalidValue, "endpoints", reason));
    }
    let read = |endpoint: &String| {
        seed(endpoint).ok_or_else(|| {
            let reason =
                format!("{endpoint:?} is no seed such as 10.0.0.1:7946, node-1.example:7946 or [fd00::1]:7946");
            descriptor.refuse(ErrorCode::InvalidValue, "endpoints", reason)
        })
    };
    let mut seeds = Vec::new();
    for endpoint in &descriptor.endpoints {
        let seed = read(endpoint)?;
        if !seeds.contains(&seed) {
            seeds.push(seed);
        }
    }
    Ok(seeds)
}

fn seed(text: &str) -> Option<Place> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return (address.port() != 0).then(|| Place::new(&address.ip().to_canonical().to_string(), address.port()));
    }
    if let Ok(address) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return Some(Place::new(&address.to_canonical().to_string(), PORT));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)?),
        None => (text, PORT),
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_host = !host.is_empty() && host.len() <= HOST && host.chars().all(is_name);
    is_host.then(|| Place::new(host, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ProviderKind;

    fn descriptor() -> ProviderDescriptor {
        ProviderDescriptor::new("g", ProviderKind::gossip()).unwrap().parameter("label", "prod")
    }

    fn refused(descriptor: ProviderDescriptor) -> (ErrorCode, String) {
        let error = Config::read(&descriptor).unwrap_err();
        (error.code(), error.field().unwrap_or("").to_owned())
    }

    #[test]
    fn p1_1_a_definition_says_the_label_and_has_a_default_for_all_else() {
        let config = Config::read(&descriptor()).unwrap();
        assert_eq!((config.settings.clone(), config.seeds.len()), (Settings::lan("prod"), 0));
        assert_eq!(config.bind("10.0.0.1").to_string(), "0.0.0.0:7946");
        assert_eq!(config.bind("fd00::1").to_string(), "[::]:7946");
        assert!(config.counts && config.advertise_port.is_none());
        let none = ProviderDescriptor::new("g", ProviderKind::gossip()).unwrap();
        assert_eq!(refused(none), (ErrorCode::MissingField, "label".into()));
        assert_eq!(refused(descriptor().parameter("label", "")), (ErrorCode::MissingField, "label".into()));
    }

    #[test]
    fn p1_1_each_parameter_changes_what_it_says() {
        let of = |name: &str, value: &str| Config::read(&descriptor().parameter(name, value)).unwrap();
        assert_eq!(of("profile", "wan").settings, Settings::wan("prod"));
        assert_eq!(of("profile", "local").settings, Settings::local("prod"));
        assert_eq!(of("suspicion", "2501ms").settings.suspicion.as_millis(), 2501);
        assert_eq!(of("quarantine", "1m").settings.quarantine, Duration::from_secs(60));
        assert!(!of("quarantine-new-lives", "off").settings.quarantine_new_lives);
        assert_eq!(of("isolated-max", "off").settings.isolation.longest, None);
        assert_eq!(of("isolated-max", "90s").settings.isolation.longest, Some(Duration::from_secs(90)));
        assert_eq!(of("seeds-interval", "1s").settings.seeds_interval, Duration::from_secs(1));
        assert_eq!((of("observers", "7").settings.observers, of("metrics", "off").counts), (7, false));
        assert_eq!(of("advertise-port", "17946").advertise_port, Some(17_946));
        for (bind, shown) in [
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("10.0.0.1", "10.0.0.1:7946"),
            ("[::]:7", "[::]:7"),
            ("::1", "[::1]:7946"),
            ("[::1]", "[::1]:7946"),
        ] {
            assert_eq!(of("bind", bind).bind("10.0.0.9").to_string(), shown);
        }
    }

    #[test]
    fn p1_1_a_seed_is_an_address_or_a_name_with_a_port_or_without() {
        let of = |seed: &str| Config::read(&descriptor().endpoint(seed)).map(|config| config.seeds[0].to_string());
        for (seed, place) in [
            ("10.0.0.1", "10.0.0.1:7946"),
            ("10.0.0.1:7", "10.0.0.1:7"),
            ("[FD00::1]:7", "[fd00::1]:7"),
            ("fd00::1", "[fd00::1]:7946"),
            ("[::ffff:10.0.0.1]:7", "10.0.0.1:7"),
            ("node-1.example", "node-1.example:7946"),
            ("node_1.example:7", "node_1.example:7"),
        ] {
            assert_eq!(of(seed).unwrap(), place);
        }
        for bad in [
            "",
            ":7",
            "host:0",
            "host:70000",
            "http://host",
            "ho st",
            "host:",
            "a/b",
            "hö",
            "10.0.0.1:0",
            &"x".repeat(254),
        ] {
            assert_eq!(refused(descriptor().endpoint(bad)), (ErrorCode::InvalidValue, "endpoints".into()), "{bad}");
        }
        let twice = descriptor().endpoint("10.0.0.1").endpoint("10.0.0.2").endpoint("10.0.0.1:7946");
        assert_eq!(Config::read(&twice).unwrap().seeds.len(), 2);
        let many = (0..=SEEDS).fold(descriptor(), |descriptor, n| descriptor.endpoint(format!("n{n}")));
        assert_eq!(refused(many), (ErrorCode::InvalidValue, "endpoints".into()));
    }

    #[test]
    fn p1_1_what_makes_no_sense_is_refused_with_the_field() {
        for (name, value, code) in [
            ("bind", "host:7", ErrorCode::InvalidValue),
            ("bind", "10.0.0.1:70000", ErrorCode::InvalidValue),
            ("profile", "fast", ErrorCode::InvalidValue),
            ("suspicion", "2500ms", ErrorCode::InvalidValue),
            ("suspicion", "1ms", ErrorCode::InvalidValue),
            ("suspicion", "601s", ErrorCode::InvalidValue),
            ("isolated-max", "1s", ErrorCode::InvalidValue),
            ("advertise-port", "0", ErrorCode::InvalidValue),
            ("labels", "x", ErrorCode::UnknownField),
        ] {
            assert_eq!(refused(descriptor().parameter(name, value)), (code, name.to_owned()));
        }
    }

    #[test]
    fn p1_1_a_member_goes_on_with_other_seeds_and_with_nothing_else_changed() {
        let config = Config::read(&descriptor()).unwrap();
        let other = |descriptor: ProviderDescriptor| config.is_same_member(&Config::read(&descriptor).unwrap());
        assert!(other(descriptor().endpoint("10.0.0.1")) && other(descriptor().priority(7)));
        assert!(!other(descriptor().parameter("bind", "127.0.0.1")) && !other(descriptor().parameter("label", "b")));
        assert!(!other(descriptor().credential(Credential::TokenEnv("X".into()))), "a plain member has no keys");
    }
}
