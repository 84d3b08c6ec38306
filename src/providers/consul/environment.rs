//! The environment variables of the official client, and what a definition takes from them.
//!
//! They are read only for a definition that says `environment = on`, and each only for what the definition leaves open:
//! a token that is meant for one Consul is never sent to another that a definition names. A malformed value is refused
//! under its variable's name and never repeated, for it may be a secret in the wrong place.

use std::borrow::Cow;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

use super::parameters::ENVIRONMENT;
use crate::error::ProvisioningError;
use crate::http::Target;
use crate::provider::{Credential, ProviderDescriptor};
use crate::providers::source::{Lookup, Source};
use crate::providers::tls::Variables;
use crate::secret::Secret;

/// Where the official client looks for the agent by default.
const DEFAULT_ADDRESS: &str = "127.0.0.1:8500";
/// The ports that the official client takes for an address without one.
const PORTS: (u16, u16) = (80, 443);

const ADDRESS: &str = "CONSUL_HTTP_ADDR";
const TOKEN: &str = "CONSUL_HTTP_TOKEN";
const TOKEN_FILE: &str = "CONSUL_HTTP_TOKEN_FILE";
const AUTH: &str = "CONSUL_HTTP_AUTH";
const SSL: &str = "CONSUL_HTTP_SSL";
/// What the environment says of TLS. (The official client checks nothing if it cannot read whether it shall.)
pub(super) const TLS: Variables = Variables {
    ca_file: "CONSUL_CACERT",
    ca_path: "CONSUL_CAPATH",
    client: ("CONSUL_CLIENT_CERT", "CONSUL_CLIENT_KEY"),
    server_name: "CONSUL_TLS_SERVER_NAME",
    verify: "CONSUL_HTTP_SSL_VERIFY",
};

/// What the definition says, and if it says `environment = on` the variables.
///
/// # Errors
/// [`InvalidValue`](crate::error::ErrorCode::InvalidValue) if `environment` is neither `on` nor `off`.
pub(super) fn source<'a>(
    descriptor: &'a ProviderDescriptor,
    lookup: Lookup<'a>,
) -> Result<Source<'a>, ProvisioningError> {
    let is_on = ENVIRONMENT.is_on(descriptor)?.unwrap_or(false);
    Ok(Source::new(descriptor, is_on.then_some(lookup)))
}

impl Source<'_> {
    /// Whether the agent's address is the environment's.
    pub(super) fn has_environments_address(&self) -> bool {
        self.variables().is_some() && self.descriptor.endpoints.is_empty()
    }

    /// The agent's address, as the environment has it: `host:port`, a URL, or `unix://path`.
    ///
    /// # Errors
    /// [`InvalidValue`](crate::error::ErrorCode::InvalidValue), with the variable.
    pub(super) fn address(&self) -> Result<Target, ProvisioningError> {
        let address = self.variable(ADDRESS)?.map_or(Cow::Borrowed(DEFAULT_ADDRESS), |given| given.text);
        let tls = self.truth(SSL)?.unwrap_or(false);
        let url = match address.split_once("://") {
            Some(("unix", _)) if tls => {
                return Err(self.invalid(SSL, format!("TLS is not spoken over the unix socket of {ADDRESS}")));
            }
            // Asked for once, TLS is not given up for a scheme.
            Some(("http", rest)) if tls => format!("https://{rest}"),
            Some(_) => address.into_owned(),
            None if tls => format!("https://{address}"),
            None => format!("http://{address}"),
        };
        Target::parse(&url, PORTS.0, PORTS.1).map_err(|reason| self.invalid(ADDRESS, reason))
    }

    /// Where the token comes from: the definition, or the environment's file, or its variable.
    ///
    /// # Errors
    /// [`InvalidValue`](crate::error::ErrorCode::InvalidValue) for a file's name that is not UTF-8.
    pub(super) fn credential(&self) -> Result<Credential, ProvisioningError> {
        if self.descriptor.credential != Credential::None {
            return Ok(self.descriptor.credential.clone());
        }
        if let Some(file) = self.variable(TOKEN_FILE)? {
            return Ok(Credential::TokenFile(file.text.into_owned()));
        }
        let is_set = self.variables().and_then(|lookup| lookup(TOKEN)).is_some_and(|token| !token.is_empty());
        Ok(if is_set { Credential::TokenEnv(TOKEN.to_owned()) } else { Credential::None })
    }

    /// The login for a proxy before the agent, as the value of the header `Authorization`.
    ///
    /// # Errors
    /// [`InvalidValue`](crate::error::ErrorCode::InvalidValue) if it is not UTF-8.
    pub(super) fn authorization(&self) -> Result<Option<Secret>, ProvisioningError> {
        let Some(login) = self.variable(AUTH)? else { return Ok(None) };
        let login = Zeroizing::new(login.text.into_owned());
        let login = Zeroizing::new(if login.contains(':') { login.to_string() } else { format!("{}:", *login) });
        Ok(Some(Secret::new(format!("Basic {}", BASE64_STANDARD.encode(login.as_bytes())))))
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::error::ErrorCode;
    use crate::id::ProviderKind;
    use crate::provider::ProviderDescriptor;
    use crate::providers::tls;

    fn descriptor() -> ProviderDescriptor {
        let descriptor = ProviderDescriptor::new("consul-a", ProviderKind::consul()).unwrap();
        descriptor.parameter("service", "orders").parameter("environment", "on")
    }

    fn with<T>(variables: &[(&str, &str)], read: impl FnOnce(&Source<'_>) -> T) -> T {
        let lookup =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
        read(&source(&descriptor(), &lookup).unwrap())
    }

    fn base(variables: &[(&str, &str)]) -> String {
        with(variables, |source| source.address().unwrap().base())
    }

    #[test]
    fn consul_point_17_every_form_of_the_official_clients_address_is_read() {
        assert_eq!(base(&[]), "http://127.0.0.1:8500");
        assert_eq!(base(&[(ADDRESS, "")]), "http://127.0.0.1:8500");
        assert_eq!(base(&[(ADDRESS, "consul.example:8500")]), "http://consul.example:8500");
        assert_eq!(base(&[(ADDRESS, "http://consul.example")]), "http://consul.example:80");
        assert_eq!(base(&[(ADDRESS, "https://consul.example/")]), "https://consul.example:443");
        assert_eq!(base(&[(ADDRESS, "[::1]:8501"), (SSL, "true")]), "https://[::1]:8501");
        assert_eq!(base(&[(ADDRESS, "http://consul.example:8501"), (SSL, "1")]), "https://consul.example:8501");
        assert_eq!(base(&[(ADDRESS, "https://consul.example:8501"), (SSL, "0")]), "https://consul.example:8501");
        #[cfg(unix)]
        assert_eq!(base(&[(ADDRESS, "unix:///run/consul.sock")]), "http://localhost");
    }

    #[test]
    fn consul_point_17_a_malformed_variable_is_refused_by_its_name_and_not_repeated() {
        for (name, value) in [
            (ADDRESS, "hunter2 x"),
            (ADDRESS, "ftp://hunter2"),
            (ADDRESS, "user:hunter2@host:1"),
            (ADDRESS, "http://host/hunter2"),
            (SSL, "hunter2"),
        ] {
            let error = with(&[(name, value)], |source| source.address().unwrap_err());
            assert_eq!((error.code(), error.field()), (ErrorCode::InvalidValue, Some(name)), "{value}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        let contradiction = with(&[(ADDRESS, "unix:///s"), (SSL, "true")], |source| source.address().unwrap_err());
        assert_eq!(contradiction.field(), Some(SSL));
        // The official client takes this for "do not check".
        let verify = TLS.verify;
        assert_eq!(with(&[(verify, "yes")], |source| source.truth(verify).unwrap_err()).field(), Some(verify));
    }

    #[test]
    fn consul_point_17_what_the_official_client_takes_for_tls_is_taken_under_its_names() {
        let variables = [
            ("CONSUL_CACERT", "ca.pem"),
            ("CONSUL_CLIENT_CERT", "cert.pem"),
            ("CONSUL_CLIENT_KEY", "key.pem"),
            ("CONSUL_TLS_SERVER_NAME", "consul.example:8501"),
        ];
        let read = |variables: &[(&str, &str)]| with(variables, |source| tls::read(source, Some(&TLS)).unwrap());
        let settings = read(&variables);
        assert_eq!(settings.ca_file, Some("ca.pem".into()));
        assert_eq!(settings.client, Some(("cert.pem".into(), "key.pem".into())));
        assert_eq!(settings.server_name.as_deref(), Some("consul.example"));
        assert_eq!(read(&[("CONSUL_CAPATH", "/ca")]).ca_path, Some("/ca".into()));
        assert!(read(&[("CONSUL_HTTP_SSL_VERIFY", "false")]).unchecked);
    }

    #[cfg(unix)]
    #[test]
    fn consul_point_17_a_variable_that_is_not_utf_8_is_refused() {
        use std::os::unix::ffi::OsStringExt;
        let lookup = |_: &str| Some(OsString::from_vec(vec![0xff]));
        let descriptor = descriptor();
        let source = source(&descriptor, &lookup).unwrap();
        assert_eq!(source.authorization().unwrap_err().field(), Some(AUTH));
        assert_eq!(source.address().unwrap_err().field(), Some(ADDRESS));
    }

    #[test]
    fn consul_point_17_the_environments_token_file_wins_over_its_token_and_the_definition_over_both() {
        let both = [(TOKEN_FILE, "/run/token"), (TOKEN, "hunter2")];
        let read = |variables: &[(&str, &str)]| with(variables, |source| source.credential().unwrap());
        assert_eq!(read(&both), Credential::TokenFile("/run/token".into()));
        assert_eq!(read(&both[1..]), Credential::TokenEnv(TOKEN.into()));
        assert_eq!(read(&[(TOKEN, "")]), Credential::None);
        let own = descriptor().credential(Credential::Secret("mine".into()));
        let source = source(&own, &|_| Some("x".into())).unwrap();
        assert_eq!(source.credential().unwrap(), Credential::Secret("mine".into()));
    }

    #[test]
    fn consul_point_17_the_environments_login_becomes_a_header_that_never_shows() {
        let header = |login: &str| with(&[(AUTH, login)], |source| source.authorization().unwrap().unwrap());
        assert_eq!(header("Aladdin:open sesame").expose(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(header("Aladdin").expose(), "Basic QWxhZGRpbjo=");
        assert_eq!(format!("{:?}", header("Aladdin")), "***");
    }

    #[test]
    fn consul_point_17_without_environment_on_no_variable_is_read() {
        let silent = ProviderDescriptor::new("consul-a", ProviderKind::consul()).unwrap();
        for descriptor in [silent.clone(), silent.parameter("environment", "off")] {
            let source = source(&descriptor, &|name| panic!("{name} was read")).unwrap();
            assert_eq!(source.credential().unwrap(), Credential::None);
            assert!(source.authorization().unwrap().is_none() && !source.has_environments_address());
            assert_eq!(source.either("namespace", "CONSUL_NAMESPACE").unwrap(), None);
        }
    }
}
