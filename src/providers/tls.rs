//! What a definition says of TLS: which authorities are trusted, who we are, and which combinations make no sense. No
//! file is read here. Which variables may complete the definition is the provider's to say.

use std::path::PathBuf;

use crate::error::{ErrorCode, ProvisioningError};
use crate::http::TlsSettings;
use crate::providers::parameter::{Form, Parameter, Preset, SWITCH};
use crate::providers::source::{Given, Source};

/// The environment's variables that complete a definition where these are read; each is named as the parameter is.
#[derive(Clone, Copy, Debug)]
pub(in crate::providers) struct Variables {
    pub(in crate::providers) ca_file: &'static str,
    pub(in crate::providers) ca_path: &'static str,
    /// The certificate and its key.
    pub(in crate::providers) client: (&'static str, &'static str),
    /// May have a port, too.
    pub(in crate::providers) server_name: &'static str,
    pub(in crate::providers) verify: &'static str,
}

/// The key of our certificate.
pub(in crate::providers) static CLIENT_KEY: Parameter = Parameter {
    name: "client-key",
    default: Preset::Told("none"),
    form: Form::Own("a path"),
    meaning: "its key, unencrypted: PKCS #1, PKCS #8 or SEC 1",
};

/// Whether certificates are checked.
pub(in crate::providers) static VERIFY: Parameter = Parameter {
    name: "tls-verify",
    default: Preset::Value("on"),
    form: SWITCH,
    meaning: "`off` takes any certificate, with a warning in the log: for experiments only",
};

/// The parameters that only make sense over TLS.
const PARAMETERS: [&str; 6] = ["ca-file", "ca-path", "client-cert", "client-key", "tls-server-name", "tls-verify"];

/// Reads the settings of a connection over TLS.
///
/// # Errors
/// [`ErrorCode::InvalidValue`] or [`ErrorCode::MissingField`], with the parameter or variable.
pub(in crate::providers) fn read(
    source: &Source<'_>,
    variables: Option<&Variables>,
) -> Result<TlsSettings, ProvisioningError> {
    let (ca_file, ca_path) = (source.parameter("ca-file")?, source.parameter("ca-path")?);
    let variable = |name: fn(&Variables) -> &'static str| match variables {
        Some(variables) => source.variable(name(variables)),
        None => Ok(None),
    };
    let own_authorities = ca_file.is_some() || ca_path.is_some();
    let verify = match VERIFY.is_on(source.descriptor)? {
        Some(false) if own_authorities => {
            let reason = "off checks no certificate; remove ca-file and ca-path, or this";
            return Err(source.invalid("tls-verify", reason));
        }
        Some(verify) => verify,
        // Authorities that the definition names are there to be checked against.
        None if own_authorities => true,
        None => match variables {
            Some(variables) => source.truth(variables.verify)?.unwrap_or(true),
            None => true,
        },
    };
    let (ca_file, ca_path) = match (ca_file, ca_path) {
        _ if !verify => (None, None),
        // The official client does not look at the folder if there is a file.
        (None, None) => match variable(|names| names.ca_file)? {
            Some(file) => (Some(file), None),
            None => (None, variable(|names| names.ca_path)?),
        },
        own => own,
    };
    Ok(TlsSettings {
        ca_file: path(source, ca_file)?,
        ca_path: path(source, ca_path)?,
        client: client(source, variables)?,
        server_name: server_name(source, variables)?,
        unchecked: !verify,
        #[cfg(feature = "kubeconfig")]
        held: None,
    })
}

/// Refuses parameters that would be without effect, because the agent is not reached over TLS.
///
/// # Errors
/// [`ErrorCode::InvalidValue`], with the first of them.
pub(in crate::providers) fn refuse_without_tls(source: &Source<'_>) -> Result<(), ProvisioningError> {
    match PARAMETERS.into_iter().find(|name| source.descriptor.parameters.contains_key(*name)) {
        None => Ok(()),
        Some(name) => Err(source.invalid(name, "it is without effect unless the endpoint's URL begins with https://")),
    }
}

/// Our certificate and its key, both from the same place.
fn client(source: &Source<'_>, variables: Option<&Variables>) -> Result<Option<(PathBuf, PathBuf)>, ProvisioningError> {
    let names = ("client-cert", "client-key");
    let own = (source.parameter(names.0)?, source.parameter(names.1)?);
    let (names, pair) = match (own, variables) {
        ((None, None), Some(Variables { client: names, .. })) => {
            (*names, (source.variable(names.0)?, source.variable(names.1)?))
        }
        (own, _) => (names, own),
    };
    let (certificate, key) = (path(source, pair.0)?, path(source, pair.1)?);
    let missing = |field: &'static str, other: &str| {
        let error =
            source.descriptor.refuse(ErrorCode::MissingField, field, format!("{other} is of no use without it"));
        let is_variable = !PARAMETERS.contains(&field);
        Err(if is_variable { error.with_advice("set both environment variables or neither") } else { error })
    };
    match (certificate, key) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
        (Some(_), None) => missing(names.1, names.0),
        (None, Some(_)) => missing(names.0, names.1),
    }
}

/// The name that the server's certificate has to hold, if it is not the host's.
///
/// # Errors
/// [`ErrorCode::InvalidValue`] for what is no such name.
pub(in crate::providers) fn server_name(
    source: &Source<'_>,
    variables: Option<&Variables>,
) -> Result<Option<String>, ProvisioningError> {
    let given = match (source.parameter("tls-server-name")?, variables) {
        (None, Some(variables)) => source.variable(variables.server_name)?,
        (given, _) => given,
    };
    let Some(Given { field, text }) = given else { return Ok(None) };
    // The official client takes a name with a port, too.
    let name = match text.split_once(':') {
        Some((name, port)) if field != "tls-server-name" && port.chars().all(|c| c.is_ascii_digit()) => name,
        _ => &*text,
    };
    if !TlsSettings::is_server_name(name) {
        return Err(source.invalid(field, "it is no name that a certificate can hold"));
    }
    Ok(Some(name.to_owned()))
}

/// The path that a field names.
///
/// # Errors
/// [`ErrorCode::InvalidValue`] for what is no path.
pub(in crate::providers) fn path(
    source: &Source<'_>,
    given: Option<Given<'_>>,
) -> Result<Option<PathBuf>, ProvisioningError> {
    match given {
        None => Ok(None),
        // Whoever puts the certificate itself here is told so, and it is not repeated.
        Some(given) if given.text.contains("-----BEGIN") => {
            Err(source.invalid(given.field, "it is the path of a file in PEM form, not its content"))
        }
        Some(given) if given.text.chars().any(char::is_control) => {
            Err(source.invalid(given.field, "it has control characters"))
        }
        Some(given) => Ok(Some(PathBuf::from(&*given.text))),
    }
}

#[cfg(all(test, feature = "consul"))]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::id::ProviderKind;
    use crate::provider::ProviderDescriptor;

    const VARIABLES: Variables = Variables {
        ca_file: "ENV_CA_FILE",
        ca_path: "ENV_CA_PATH",
        client: ("ENV_CERT", "ENV_KEY"),
        server_name: "ENV_NAME",
        verify: "ENV_VERIFY",
    };

    fn settings(parameters: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<TlsSettings, ProvisioningError> {
        let mut descriptor = ProviderDescriptor::new("consul-a", ProviderKind::consul()).unwrap();
        descriptor.parameters = parameters.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let lookup =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
        let is_on = parameters.contains(&ON);
        read(&Source::new(&descriptor, is_on.then_some(&lookup)), Some(&VARIABLES))
    }

    const ON: (&str, &str) = ("environment", "on");

    #[test]
    fn consul_point_17_tls_is_checked_against_the_public_authorities_by_default() {
        let default = settings(&[], &[]).unwrap();
        assert!(!default.unchecked && default.ca_file.is_none() && default.ca_path.is_none());
        assert!(default.client.is_none() && default.server_name.is_none());
    }

    #[test]
    fn consul_point_17_contradictions_are_refused_with_the_field() {
        let refused = |parameters: &[(&str, &str)]| {
            let error = settings(parameters, &[]).unwrap_err();
            (error.code(), error.field().unwrap().to_owned())
        };
        let invalid = |field: &str| (ErrorCode::InvalidValue, field.to_owned());
        let missing = |field: &str| (ErrorCode::MissingField, field.to_owned());
        assert_eq!(refused(&[("client-cert", "c.pem")]), missing("client-key"));
        assert_eq!(refused(&[("client-key", "k.pem")]), missing("client-cert"));
        assert_eq!(refused(&[("ca-file", "")]), missing("ca-file"));
        assert_eq!(refused(&[("ca-path", "/a\tb")]), invalid("ca-path"));
        assert_eq!(refused(&[("tls-verify", "no")]), invalid("tls-verify"));
        assert_eq!(refused(&[("tls-verify", "off"), ("ca-file", "ca.pem")]), invalid("tls-verify"));
        assert_eq!(refused(&[("tls-verify", "off"), ("ca-path", "/ca")]), invalid("tls-verify"));
        assert_eq!(refused(&[("tls-server-name", "a b")]), invalid("tls-server-name"));
        // Also where the lines were joined on the way here.
        for key in ["-----BEGIN PRIVATE KEY-----\nhunter2", "-----BEGIN PRIVATE KEY----- hunter2"] {
            let error = settings(&[("client-cert", "c.pem"), ("client-key", key)], &[]).unwrap_err();
            assert!(error.field() == Some("client-key") && !error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn consul_point_17_the_environment_fills_in_what_the_definition_leaves_open_and_no_more() {
        let variables = [
            ("ENV_CA_FILE", "env-ca.pem"),
            ("ENV_CA_PATH", "/env-ca"),
            ("ENV_CERT", "env-cert.pem"),
            ("ENV_KEY", "env-key.pem"),
            ("ENV_NAME", "env.example:8501"),
        ];
        let all = settings(&[ON], &variables).unwrap();
        assert_eq!((all.ca_file, all.ca_path), (Some("env-ca.pem".into()), None));
        assert_eq!(all.client, Some(("env-cert.pem".into(), "env-key.pem".into())));
        assert_eq!(all.server_name.as_deref(), Some("env.example"));
        let own = [ON, ("ca-path", "/own"), ("client-cert", "c"), ("client-key", "k"), ("tls-server-name", "own")];
        let own = settings(&own, &variables).unwrap();
        assert_eq!((own.ca_file, own.ca_path), (None, Some("/own".into())));
        assert_eq!((own.client, own.server_name.as_deref()), (Some(("c".into(), "k".into())), Some("own")));
        // A key of the environment does not complete a certificate of the definition.
        let half = settings(&[ON, ("client-cert", "c")], &variables).unwrap_err();
        assert_eq!((half.code(), half.field()), (ErrorCode::MissingField, Some("client-key")));
        let half = settings(&[ON], &variables[2..3]).unwrap_err();
        assert_eq!((half.code(), half.field()), (ErrorCode::MissingField, Some("ENV_KEY")));
    }

    #[test]
    fn consul_point_17_the_environment_cannot_turn_off_a_check_that_the_definition_asks_for() {
        let off = [("ENV_VERIFY", "false"), ("ENV_CA_FILE", "env-ca.pem")];
        let by_environment = settings(&[ON], &off).unwrap();
        assert!(by_environment.unchecked && by_environment.ca_file.is_none());
        assert!(!settings(&[ON, ("tls-verify", "on")], &off).unwrap().unchecked);
        assert!(!settings(&[ON, ("ca-file", "ca.pem")], &off).unwrap().unchecked);
        assert!(!settings(&[], &off).unwrap().unchecked);
    }
    #[test]
    fn consul_point_17_the_definition_alone_may_turn_the_check_off() {
        let off = settings(&[("tls-verify", "off")], &[]).unwrap();
        assert!(off.unchecked && off.ca_file.is_none() && off.ca_path.is_none());
        // The authorities of the environment are no contradiction: they are of no use then.
        let off = settings(&[ON, ("tls-verify", "off")], &[("ENV_CA_FILE", "env-ca.pem")]).unwrap();
        assert!(off.unchecked && off.ca_file.is_none());
    }

    #[test]
    fn consul_point_17_only_a_port_is_taken_off_a_server_name_and_only_off_the_environments() {
        let named = |value| settings(&[ON], &[("ENV_NAME", value)]).map(|read| read.server_name.unwrap());
        assert_eq!(named("env.example:8501").unwrap(), "env.example");
        assert_eq!(named("fe80::1").unwrap(), "fe80::1");
        assert_eq!(named("env.example:https").unwrap_err().field(), Some("ENV_NAME"));
        let own = settings(&[("tls-server-name", "own.example:8501")], &[]).unwrap_err();
        assert_eq!((own.code(), own.field()), (ErrorCode::InvalidValue, Some("tls-server-name")));
    }
}
