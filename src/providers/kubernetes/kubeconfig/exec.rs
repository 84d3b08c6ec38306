//! Exec plugins (client.authentication.k8s.io): what a kubeconfig says of one, what it is told, and what it answers.
//! Reading and writing only; [`process`](super::process) runs it.

use std::fmt;
use std::path::{MAIN_SEPARATOR, Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::entry::Entry;
use super::node::Node;
use crate::clock::Timestamp;
use crate::http::Pem;
use crate::providers::kubernetes::wire;
use crate::secret::Secret;

/// The largest answer that is read, in bytes.
pub(super) const MAX_ANSWER: usize = 1024 * 1024;
/// The longest part of a hint or of what a plugin says that is repeated, in characters.
const MAX_TEXT: usize = 300;
/// The shortest argument or value of a variable that is taken out of what a plugin says, in bytes.
const MIN_SECRET: usize = 6;

/// A version of what is said to plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V1Beta1,
}

impl Version {
    const fn name(self) -> &'static str {
        match self {
            Self::V1 => "client.authentication.k8s.io/v1",
            Self::V1Beta1 => "client.authentication.k8s.io/v1beta1",
        }
    }
}

/// A plugin.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Spec {
    version: Version,
    /// A path, or a name that is looked for by PATH.
    pub(super) command: PathBuf,
    pub(super) args: Vec<Zeroizing<String>>,
    pub(super) env: Vec<(String, Zeroizing<String>)>,
    /// What to do if the command is not there.
    pub(super) hint: Option<String>,
    /// Whether it is told of the cluster.
    pub(super) told_cluster: bool,
    /// Where it stands in the kubeconfig.
    pub(super) place: String,
}

/// Arguments and variables may be secret.
impl fmt::Debug for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spec").field("command", &self.command).finish_non_exhaustive()
    }
}

impl Spec {
    pub(super) fn read(entry: &Entry<'_>, folder: &Path) -> Result<Self, String> {
        let version = match entry.text("apiVersion")? {
            Some(name) if name == Version::V1.name() => Version::V1,
            Some(name) if name == Version::V1Beta1.name() => Version::V1Beta1,
            Some("client.authentication.k8s.io/v1alpha1") => {
                return Err(
                    entry.refuse("apiVersion", "v1alpha1 is not supported; the plugin has to speak v1 or v1beta1")
                );
            }
            Some(_) => {
                return Err(entry.refuse("apiVersion", "it is neither v1 nor v1beta1 of client.authentication.k8s.io"));
            }
            None => return Err(entry.refuse("apiVersion", "it is missing")),
        };
        let command = match entry.text("command")? {
            None => return Err(entry.refuse("command", "it is missing")),
            Some(text) if text.chars().any(char::is_control) => {
                return Err(entry.refuse("command", "it has control characters"));
            }
            Some(text) if text.contains(['/', MAIN_SEPARATOR]) => folder.join(text),
            Some(text) => PathBuf::from(text),
        };
        match entry.text("interactiveMode")? {
            None | Some("Never" | "IfAvailable") => {}
            Some("Always") => {
                let why = "nobody is there to be asked; the plugin has to work with Never or IfAvailable";
                return Err(entry.refuse("interactiveMode", why));
            }
            Some(_) => return Err(entry.refuse("interactiveMode", "it is none of Never, IfAvailable, Always")),
        }
        let mut args = Vec::new();
        for (index, node) in entry.list("args")?.iter().enumerate() {
            match node {
                Node::Text(text) if !text.contains('\0') => args.push(text.clone()),
                other => {
                    let why = format!("it is {}, not a usable text", other.kind());
                    return Err(entry.refuse(&format!("args[{index}]"), &why));
                }
            }
        }
        let mut env = Vec::new();
        for (index, node) in entry.list("env")?.iter().enumerate() {
            let item = Entry::of(node, entry.place(&format!("env[{index}]")))?;
            match item.text("name")? {
                Some(name) if !name.contains(['=', '\0']) => {
                    let value = item.text("value")?.unwrap_or_default();
                    if value.contains('\0') {
                        return Err(item.refuse("value", "it has a null character"));
                    }
                    env.push((name.to_owned(), Zeroizing::new(value.to_owned())));
                }
                Some(_) => return Err(item.refuse("name", "no variable can have that name")),
                None => return Err(item.refuse("name", "it is missing")),
            }
        }
        Ok(Self {
            version,
            command,
            args,
            env,
            hint: entry.text("installHint")?.map(one_line),
            told_cluster: entry.flag("provideClusterInfo")?,
            place: entry.place("command"),
        })
    }

    /// What the plugin is told, in the variable `KUBERNETES_EXEC_INFO`.
    pub(super) fn info(&self, cluster: &Value) -> String {
        let mut spec = json!({"interactive": false});
        if self.told_cluster
            && let Some(spec) = spec.as_object_mut()
        {
            spec.insert("cluster".to_owned(), cluster.clone());
        }
        json!({"apiVersion": self.version.name(), "kind": "ExecCredential", "spec": spec}).to_string()
    }

    /// Reads what the plugin has answered.
    ///
    /// # Errors
    /// What is wrong with it, in words of ours: it holds secrets.
    pub(super) fn answer(&self, stdout: &[u8]) -> Result<Answer, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Whole {
            #[serde(default)]
            kind: String,
            #[serde(default)]
            api_version: String,
            status: Option<Status>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Status {
            token: Option<Zeroizing<String>>,
            client_certificate_data: Option<Zeroizing<String>>,
            client_key_data: Option<Zeroizing<String>>,
            expiration_timestamp: Option<String>,
        }
        let whole: Whole = serde_json::from_slice(stdout).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            format!("its answer is no ExecCredential in JSON (line {line}, column {column})")
        })?;
        if whole.kind != "ExecCredential" {
            return Err("its answer is of another kind than ExecCredential".to_owned());
        }
        if whole.api_version != self.version.name() {
            return Err(format!("its answer is of another apiVersion than {}", self.version.name()));
        }
        let Some(status) = whole.status else { return Err("its answer has no status".to_owned()) };
        let given = |text: Option<Zeroizing<String>>| text.filter(|text| !text.is_empty());
        let token = given(status.token).map(|token| Secret::new(token.trim()));
        if token.as_ref().is_some_and(|token| token.expose().is_empty()) {
            return Err("the token of its answer is blank".to_owned());
        }
        let pem = |name: &str, text: Zeroizing<String>| Pem::Held {
            place: format!("{name} of the answer of {}", self.place).into(),
            content: Arc::new(Zeroizing::new(text.as_bytes().to_vec())),
        };
        let client = match (given(status.client_certificate_data), given(status.client_key_data)) {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                Some((pem("clientCertificateData", certificate), pem("clientKeyData", key)))
            }
            _ => return Err("of certificate and key its answer has only one".to_owned()),
        };
        if token.is_none() && client.is_none() {
            return Err("its answer has neither a token nor a certificate".to_owned());
        }
        let expires = match status.expiration_timestamp.as_deref() {
            None => None,
            Some(text) => Some(time(text).ok_or("the expirationTimestamp of its answer is no time")?),
        };
        Ok(Answer { token, client, expires })
    }

    /// One line of what the plugin said on its way to failing, without what it was given.
    pub(super) fn last_words(&self, stderr: &[u8]) -> Option<String> {
        let text = String::from_utf8_lossy(stderr);
        let mut line = text.lines().rev().find(|line| !line.trim().is_empty())?.to_owned();
        let args = self.args.iter().map(|arg| match arg.split_once('=') {
            Some((name, value)) if name.starts_with('-') => value,
            _ if arg.starts_with('-') => "",
            _ => arg,
        });
        let given = args.chain(self.env.iter().map(|(_, value)| value.as_str()));
        let mut secrets: Vec<&str> = given.flat_map(str::lines).collect();
        // A long one may contain a short one.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        for secret in secrets.into_iter().filter(|secret| secret.len() >= MIN_SECRET) {
            line = line.replace(secret, "***");
        }
        Some(one_line(&line))
    }
}

/// What a plugin has answered.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) token: Option<Secret>,
    pub(super) client: Option<(Pem, Pem)>,
    pub(super) expires: Option<Timestamp>,
}

/// A text as errors repeat it.
fn one_line(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(MAX_TEXT).collect()
}

/// A time by RFC 3339; one before 1970 is 1970.
fn time(text: &str) -> Option<Timestamp> {
    let (local, offset) = match text.strip_suffix(['Z', 'z']) {
        Some(local) => (local, 0),
        None => {
            let (local, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
            let (sign, offset) = (offset.get(..1)?, offset.get(1..)?);
            let (hours, minutes) = offset.split_once(':')?;
            let number =
                |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<i64>().ok())?;
            let offset = (number(hours)?, number(minutes)?);
            if offset.0 > 23 || offset.1 > 59 || hours.len() != 2 {
                return None;
            }
            let seconds = (offset.0 * 60 + offset.1) * 60;
            (
                local,
                if sign == "-" {
                    -seconds
                } else if sign == "+" {
                    seconds
                } else {
                    return None;
                },
            )
        }
    };
    let seconds = i64::try_from(wire::seconds(&format!("{}Z", local.replace(['t', ' '], "T")))?).ok()?;
    let seconds = u64::try_from(seconds - offset).unwrap_or_default();
    Some(Timestamp::from_millis(seconds.saturating_mul(1000)))
}

#[cfg(test)]
mod tests {
    use super::super::told::told_answer;
    use super::*;

    fn spec(text: &str) -> Result<Spec, String> {
        let node = Node::parse(text.as_bytes())?;
        Spec::read(&Entry::of(&node, "users[a].user.exec".to_owned())?, Path::new("/kube"))
    }

    fn plugin(rest: &str) -> Result<Spec, String> {
        spec(&format!("{{apiVersion: client.authentication.k8s.io/v1, command: c, {rest}}}"))
    }

    #[test]
    fn kubernetes_point_21_a_plugin_is_found_by_path_or_from_the_kubeconfigs_folder() {
        let command = |name: &str| {
            spec(&format!("{{apiVersion: client.authentication.k8s.io/v1beta1, command: {name}}}")).unwrap().command
        };
        assert_eq!(command("aws"), Path::new("aws"));
        assert_eq!(command("bin/aws"), Path::new("/kube/bin/aws"));
        assert_eq!(command("/bin/aws"), Path::new("/bin/aws"));
        let whole = plugin(
            "args: [a, '1'], env: [{name: A, value: b}, {name: C}], installHint: \"x\\ny\", interactiveMode: Never",
        );
        let whole = whole.unwrap();
        let args: Vec<_> = whole.args.iter().map(|arg| arg.as_str()).collect();
        let env: Vec<_> = whole.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!((args, env), (vec!["a", "1"], vec![("A", "b"), ("C", "")]));
        assert_eq!(whole.hint.as_deref(), Some("x y"));
        assert_eq!(whole.place, "users[a].user.exec.command");
    }

    #[test]
    fn kubernetes_point_21_what_a_plugin_cannot_be_is_refused_by_its_place() {
        for (text, refusal) in [
            ("{command: c}", "apiVersion: it is missing"),
            (
                "{command: c, apiVersion: client.authentication.k8s.io/v1alpha1}",
                "apiVersion: v1alpha1 is not supported",
            ),
            ("{command: c, apiVersion: s3cr3t}", "apiVersion: it is neither v1 nor v1beta1"),
            ("{apiVersion: client.authentication.k8s.io/v1}", "command: it is missing"),
            ("{apiVersion: client.authentication.k8s.io/v1, command: [s3cr3t]}", "command: it is a list"),
            ("{apiVersion: client.authentication.k8s.io/v1, command: \"a\\0\"}", "command: it has control"),
        ] {
            let error = spec(text).unwrap_err();
            assert!(
                error.starts_with(&format!("users[a].user.exec.{refusal}")) && !error.contains("s3cr3t"),
                "{error}"
            );
        }
        for (rest, refusal) in [
            ("interactiveMode: Always", "interactiveMode: nobody is there"),
            ("interactiveMode: s3cr3t", "interactiveMode: it is none of"),
            ("args: s3cr3t", "args: it is a text, not a list"),
            ("args: [a, 1]", "args[1]: it is a number"),
            ("args: [\"s3cr3t\\0\"]", "args[0]: it is a text, not a usable"),
            ("env: [s3cr3t]", "env[0]: it is a text, not a map"),
            ("env: [{value: s3cr3t}]", "env[0].name: it is missing"),
            ("env: [{name: 'a=s3cr3t'}]", "env[0].name: no variable"),
            ("env: [{name: a, value: [s3cr3t]}]", "env[0].value: it is a list"),
            ("env: [{name: a, value: \"s3cr3t\\0\"}]", "env[0].value: it has a null"),
            ("provideClusterInfo: s3cr3t", "provideClusterInfo: it is a text"),
            ("installHint: 1", "installHint: it is a number"),
        ] {
            let error = plugin(rest).unwrap_err();
            assert!(
                error.starts_with(&format!("users[a].user.exec.{refusal}")) && !error.contains("s3cr3t"),
                "{error}"
            );
        }
    }

    #[test]
    fn kubernetes_point_21_a_plugin_is_told_that_nobody_is_there_and_of_the_cluster_if_it_asks() {
        let cluster = json!({"server": "https://h"});
        let info = |spec: Spec| serde_json::from_str::<Value>(&spec.info(&cluster)).unwrap();
        let without = json!({
            "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "spec": {"interactive": false},
        });
        assert_eq!(info(plugin("provideClusterInfo: false").unwrap()), without);
        let with = info(plugin("provideClusterInfo: true").unwrap());
        assert_eq!(with["spec"], json!({"interactive": false, "cluster": {"server": "https://h"}}));
    }

    fn answer(status: &str) -> Result<Answer, String> {
        let whole =
            format!(r#"{{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{status}}}"#);
        plugin("").unwrap().answer(whole.as_bytes())
    }

    #[test]
    fn kubernetes_point_21_an_answer_is_a_token_or_a_certificate_or_both() {
        let token = answer(r#"{"token":" t\n","expirationTimestamp":"2030-01-02T03:04:05Z"}"#).unwrap();
        assert_eq!(token.token.unwrap().expose(), "t");
        assert_eq!(token.expires.unwrap().to_string(), "2030-01-02T03:04:05.000Z");
        let both = answer(r#"{"token":"t","clientCertificateData":"c","clientKeyData":"k"}"#).unwrap();
        assert!(both.token.is_some() && both.client.is_some() && both.expires.is_none());
        assert!(answer(r#"{"token":"","clientCertificateData":"c","clientKeyData":"k"}"#).unwrap().token.is_none());
        for (status, refusal) in [
            ("null", "no status"),
            ("{}", "neither a token"),
            (r#"{"token":""}"#, "neither a token"),
            (r#"{"token":" "}"#, "blank"),
            (r#"{"clientCertificateData":"s3cr3t"}"#, "only one"),
            (r#"{"token":"s3cr3t","clientKeyData":"s3cr3t"}"#, "only one"),
            (r#"{"token":"t","expirationTimestamp":"s3cr3t"}"#, "no time"),
            (r#"{"token":["s3cr3t"]}"#, "no ExecCredential"),
            (r#""s3cr3t""#, "no ExecCredential"),
        ] {
            let error = answer(status).unwrap_err();
            assert!(error.contains(refusal) && !error.contains("s3cr3t"), "{status}: {error}");
        }
        for (whole, refusal) in [
            ("", "no ExecCredential in JSON (line 1, column 0)"),
            ("s3cr3t", "no ExecCredential in JSON"),
            (r#"{"kind":"Pod"}"#, "another kind"),
            (
                r#"{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1beta1","status":{"token":"t"}}"#,
                "another apiVersion",
            ),
        ] {
            let error = plugin("").unwrap().answer(whole.as_bytes()).unwrap_err();
            assert!(error.contains(refusal) && !error.contains("s3cr3t"), "{whole}: {error}");
        }
    }

    #[test]
    fn kubernetes_point_21_times_are_read_with_their_offset() {
        let seconds = |text: &str| time(text).map(|time| time.as_millis() / 1000);
        assert_eq!(seconds("2000-02-29T12:34:56Z"), Some(951_827_696));
        assert_eq!(seconds("2000-02-29T12:34:56.789z"), Some(951_827_696));
        assert_eq!(seconds("2000-02-29T14:04:56+01:30"), Some(951_827_696));
        assert_eq!(seconds("2000-02-29T04:34:56-08:00"), Some(951_827_696));
        assert_eq!(seconds("1970-01-01T00:00:00+05:00"), Some(0));
        for none in [
            "",
            "Z",
            "2000-02-29",
            "2000-02-29T12:34:56",
            "2000-02-29T12:34:56*08:00",
            "2000-02-29T12:34:56+24:00",
            "2000-02-29T12:34:56+1:000",
            "\u{e4}\u{e4}\u{e4}\u{e4}",
        ] {
            assert_eq!(seconds(none), None, "{none}");
        }
    }

    #[test]
    fn kubernetes_point_21_what_a_plugin_was_given_is_taken_out_of_what_it_says() {
        let spec =
            plugin("args: [--id=s3cr3t-1, s3cr3t-2, --verbose], env: [{name: A, value: \"s3cr3t-3\\ns3cr3t-4\"}]")
                .unwrap();
        let words = |text: &str| spec.last_words(text.as_bytes());
        assert_eq!(
            words("first\nno such flag: --verbose s3cr3t-1 s3cr3t-2 s3cr3t-3 s3cr3t-4\n\n").as_deref(),
            Some("no such flag: --verbose *** *** *** ***")
        );
        assert_eq!(words(" \n"), None);
        assert_eq!(words(&"x".repeat(10_000)).map(|words| words.len()), Some(MAX_TEXT));
        assert_eq!(words("a\u{1b}[1m\tb").as_deref(), Some("a [1m b"));
        assert!(!format!("{spec:?}").contains("s3cr3t"));
    }

    proptest::proptest! {
        #[test]
        fn kubernetes_point_21_any_bytes_are_an_answer_or_refused(bytes: Vec<u8>) {
            told_answer(&bytes);
        }

        #[test]
        fn kubernetes_point_21_any_text_is_a_time_or_none(text in "[-0-9TtZz+:. \u{e4}]{0,30}") {
            time(&text);
        }
    }
}
