//! One kubeconfig file, and what its entries say: clusters, contexts and users by their names.
//!
//! Only the entries that are asked for are looked at in full, so that what is wrong with another cluster does not
//! matter here. An error names the place by its path, `users[alice].user.token`, and never repeats a value.

use std::path::Path;
use std::sync::Arc;

use super::entry::Entry;
use super::exec::Spec;
use super::node::Node;
use crate::http::Pem;
use crate::secret::Secret;

/// The extension of a cluster that is handed to its plugins.
const EXEC_EXTENSION: &str = "client.authentication.k8s.io/exec";
/// How much of a name is repeated in an error, in characters.
const MAX_NAME: usize = 100;

/// A kind of entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Cluster,
    Context,
    User,
}

impl Kind {
    /// The key of the list, and that of an entry's content.
    const fn keys(self) -> (&'static str, &'static str) {
        match self {
            Self::Cluster => ("clusters", "cluster"),
            Self::Context => ("contexts", "context"),
            Self::User => ("users", "user"),
        }
    }

    /// Where the entry of that name stands.
    pub(super) fn place(self, name: &str) -> String {
        let (list, content) = self.keys();
        format!("{list}[{}].{content}", shown(name))
    }
}

/// A name as errors show it: in one line, and not all of a long one.
pub(super) fn shown(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '?' } else { c }).take(MAX_NAME).collect()
}

/// A file.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) current_context: Option<String>,
    clusters: Vec<(String, Node)>,
    contexts: Vec<(String, Node)>,
    users: Vec<(String, Node)>,
}

impl Document {
    /// Reads a file's content.
    ///
    /// # Errors
    /// What is wrong and where.
    pub(super) fn parse(content: &[u8]) -> Result<Self, String> {
        let mut map = match Node::parse(content)? {
            Node::Null => Vec::new(),
            Node::Map(map) => map,
            other => return Err(format!("it is {}, not a kubeconfig", other.kind())),
        };
        let top = Entry::of_map(&map, String::new());
        if top.text("kind")?.is_some_and(|kind| kind != "Config") {
            return Err("kind: it is another one than Config".to_owned());
        }
        if top.text("apiVersion")?.is_some_and(|version| version != "v1") {
            return Err("apiVersion: it is another one than v1".to_owned());
        }
        let current_context = top.text("current-context")?.map(str::to_owned);
        let mut list = |kind| entries(&mut map, kind);
        Ok(Self {
            current_context,
            clusters: list(Kind::Cluster)?,
            contexts: list(Kind::Context)?,
            users: list(Kind::User)?,
        })
    }

    /// The content of that entry.
    pub(super) fn find(&self, kind: Kind, name: &str) -> Option<&Node> {
        self.of(kind).iter().find(|(other, _)| other == name).map(|(_, content)| content)
    }

    /// The names of all entries of a kind.
    pub(super) fn names(&self, kind: Kind) -> impl Iterator<Item = &str> {
        self.of(kind).iter().map(|(name, _)| name.as_str())
    }

    fn of(&self, kind: Kind) -> &[(String, Node)] {
        match kind {
            Kind::Cluster => &self.clusters,
            Kind::Context => &self.contexts,
            Kind::User => &self.users,
        }
    }
}

/// Takes the entries of a kind out of the document, by their names.
fn entries(map: &mut [(String, Node)], kind: Kind) -> Result<Vec<(String, Node)>, String> {
    let (list, content) = kind.keys();
    let Some((_, node)) = map.iter_mut().find(|(key, _)| key == list) else { return Ok(Vec::new()) };
    let items = match std::mem::replace(node, Node::Null) {
        Node::Null => return Ok(Vec::new()),
        Node::List(items) => items,
        other => return Err(format!("{list}: it is {}, not a list", other.kind())),
    };
    let mut found: Vec<(String, Node)> = Vec::new();
    let mut names = std::collections::BTreeSet::new();
    for (index, item) in items.into_iter().enumerate() {
        let place = format!("{list}[{index}]");
        let Node::Map(mut item) = item else { return Err(format!("{place}: it is {}, not a map", item.kind())) };
        let name = match Entry::of_map(&item, place.clone()).text("name")? {
            Some(name) => name.to_owned(),
            None => return Err(format!("{place}.name: it is missing")),
        };
        if !names.insert(name.clone()) {
            return Err(format!("{list}: {:?} stands there twice", shown(&name)));
        }
        let node = item.iter_mut().find(|(key, _)| key == content);
        found.push((name, node.map_or(Node::Null, |(_, node)| std::mem::replace(node, Node::Null))));
    }
    Ok(found)
}

/// What is meant by a context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Context {
    pub(super) cluster: String,
    /// Without one, or with an empty one, the server is asked as nobody, as kubectl does.
    pub(super) user: Option<String>,
    pub(super) namespace: Option<String>,
}

impl Context {
    pub(super) fn read(entry: &Entry<'_>) -> Result<Self, String> {
        let needed = |key| entry.text(key)?.map(str::to_owned).ok_or_else(|| entry.refuse(key, "it is missing"));
        Ok(Self {
            cluster: needed("cluster")?,
            user: entry.text("user")?.map(str::to_owned),
            namespace: entry.text("namespace")?.map(str::to_owned),
        })
    }
}

/// Where a server is, and whom one trusts there.
pub(super) struct Cluster {
    pub(super) server: String,
    pub(super) server_name: Option<String>,
    pub(super) unchecked: bool,
    pub(super) ca: Option<Pem>,
    /// What plugins are told beside.
    pub(super) exec_config: serde_json::Value,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("ca", &self.ca).finish_non_exhaustive()
    }
}

impl Cluster {
    pub(super) fn read(entry: &Entry<'_>, folder: &Path) -> Result<Self, String> {
        let Some(server) = entry.text("server")? else { return Err(entry.refuse("server", "it is missing")) };
        if server.starts_with("unix:") {
            return Err(entry.refuse("server", "a unix socket is no server of a kubeconfig"));
        }
        if entry.text("proxy-url")?.is_some() {
            let why = "a proxy is named with the environment's variable HTTPS_PROXY; remove this";
            return Err(entry.refuse("proxy-url", why));
        }
        let ca = entry.pem("certificate-authority", "certificate-authority-data", folder)?;
        let unchecked = entry.flag("insecure-skip-tls-verify")?;
        if unchecked && ca.is_some() {
            let why = "it contradicts the certificate-authority beside it; remove one of the two";
            return Err(entry.refuse("insecure-skip-tls-verify", why));
        }
        let mut exec_config = serde_json::Value::Null;
        for (index, item) in entry.list("extensions")?.iter().enumerate() {
            let item = Entry::of(item, format!("{}[{index}]", entry.place("extensions")))?;
            if item.text("name")? == Some(EXEC_EXTENSION) {
                exec_config = item.get("extension").map(Node::to_json).unwrap_or_default();
            }
        }
        let server_name = entry.text("tls-server-name")?.map(str::to_owned);
        Ok(Self { server: server.to_owned(), server_name, unchecked, ca, exec_config })
    }
}

/// How a user is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) client: Option<(Pem, Pem)>,
    pub(super) bearer: Bearer,
}

/// Where a user's token comes from.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Bearer {
    None,
    Token(Token),
    /// The file's, or while that cannot be read, the other.
    File(String, Option<Token>),
    /// The plugin's, which may be a certificate, too.
    Plugin(Arc<Spec>),
}

impl std::fmt::Debug for Bearer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Token(_) => f.write_str("Token(***)"),
            Self::File(path, _) => f.debug_tuple("File").field(path).finish_non_exhaustive(),
            Self::Plugin(spec) => f.debug_tuple("Plugin").field(spec).finish(),
        }
    }
}

/// A token that can be compared with another.
#[derive(Clone)]
pub(super) struct Token(pub(super) Secret);

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.0.expose() == other.0.expose()
    }
}

impl Eq for Token {}

/// Fields of a user that are not supported, and what to do instead.
const REFUSED: [(&str, &str); 7] = [
    ("as", "impersonation is not supported; give the user itself the rights"),
    ("as-uid", "impersonation is not supported; give the user itself the rights"),
    ("as-groups", "impersonation is not supported; give the user itself the rights"),
    ("as-user-extra", "impersonation is not supported; give the user itself the rights"),
    ("username", "API servers take no passwords any more; use a token, a client certificate or an exec plugin"),
    ("password", "API servers take no passwords any more; use a token, a client certificate or an exec plugin"),
    ("auth-provider", "it is not supported; use an exec plugin, as kubectl does since 1.26"),
];

impl User {
    /// Nobody, who has nothing to show.
    pub(super) fn anonymous() -> Self {
        Self { client: None, bearer: Bearer::None }
    }

    pub(super) fn read(entry: &Entry<'_>, folder: &Path) -> Result<Self, String> {
        for (key, why) in REFUSED {
            if entry.get(key).is_some_and(|node| !matches!(node, Node::Text(text) if text.is_empty())) {
                return Err(entry.refuse(key, why));
            }
        }
        let certificate = entry.pem("client-certificate", "client-certificate-data", folder)?;
        let key = entry.pem("client-key", "client-key-data", folder)?;
        let client = match (certificate, key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (Some(_), None) => {
                return Err(entry.refuse("client-key", "it is missing, and the certificate is of no use without it"));
            }
            (None, Some(_)) => {
                return Err(entry.refuse("client-certificate", "it is missing, and the key is of no use without it"));
            }
        };
        let token = match entry.text("token")?.map(str::trim) {
            Some("") => return Err(entry.refuse("token", "it is blank")),
            token => token.map(|token| Token(Secret::new(token))),
        };
        let bearer = match (entry.path("tokenFile", folder)?, token) {
            (Some(path), token) => match path.into_os_string().into_string() {
                Ok(path) => Bearer::File(path, token),
                Err(_) => return Err(entry.refuse("tokenFile", "its path is not UTF-8")),
            },
            (None, Some(token)) => Bearer::Token(token),
            // As in the official client, a plugin is not asked by who has a credential already.
            (None, None) if client.is_some() => Bearer::None,
            (None, None) => match entry.get("exec") {
                None => Bearer::None,
                Some(node) => Bearer::Plugin(Arc::new(Spec::read(&Entry::of(node, entry.place("exec"))?, folder)?)),
            },
        };
        Ok(Self { client, bearer })
    }

    /// Whether it has anything to show.
    pub(super) fn is_anonymous(&self) -> bool {
        self.client.is_none() && self.bearer == Bearer::None
    }
}

#[cfg(test)]
mod tests {
    use super::super::told::told_file;
    use super::*;

    fn user(text: &str) -> Result<User, String> {
        let node = Node::parse(text.as_bytes())?;
        User::read(&Entry::of(&node, Kind::User.place("alice"))?, Path::new("/kube"))
    }

    fn cluster(text: &str) -> Result<Cluster, String> {
        let node = Node::parse(text.as_bytes())?;
        Cluster::read(&Entry::of(&node, Kind::Cluster.place("prod"))?, Path::new("/kube"))
    }

    fn document(text: &str) -> Result<Document, String> {
        Document::parse(text.as_bytes())
    }

    fn content(pem: &Pem) -> &[u8] {
        match pem {
            Pem::Held { content, .. } => content,
            Pem::File(path) => panic!("{path:?}"),
        }
    }

    #[test]
    fn kubernetes_point_21_data_counts_before_a_file_and_a_token_file_before_a_token() {
        let both = "{client-certificate: c.pem, client-certificate-data: YWJj, client-key: k.pem, client-key-data: \"ZG\n  Vm\"}";
        let (certificate, key) = user(both).unwrap().client.unwrap();
        assert_eq!((content(&certificate), content(&key)), (&b"abc"[..], &b"def"[..]));
        let files = user("{client-certificate: sub/c.pem, client-key: /k.pem}").unwrap().client.unwrap();
        assert_eq!(files, (Pem::File("/kube/sub/c.pem".into()), Pem::File("/k.pem".into())));
        let Bearer::File(path, Some(Token(token))) = user("{token: t, tokenFile: f}").unwrap().bearer else { panic!() };
        assert_eq!((path.as_str(), token.expose()), ("/kube/f", "t"));
        assert!(matches!(user("{tokenFile: f, token: ''}").unwrap().bearer, Bearer::File(_, None)));
        let Bearer::Token(Token(token)) = user("{token: \" t \"}").unwrap().bearer else { panic!() };
        assert_eq!(token.expose(), "t");
        assert!(user("{}").unwrap().is_anonymous() && user("~").unwrap().is_anonymous());
        let cluster =
            cluster("{server: 'https://h', certificate-authority-data: YWJj, certificate-authority: x}").unwrap();
        assert_eq!(content(&cluster.ca.unwrap()), b"abc");
    }

    #[test]
    fn kubernetes_point_21_a_plugin_is_not_asked_by_who_has_a_credential() {
        let exec = "exec: {apiVersion: client.authentication.k8s.io/v1, command: c}";
        assert!(matches!(user(&format!("{{{exec}}}")).unwrap().bearer, Bearer::Plugin(_)));
        assert!(matches!(user(&format!("{{token: t, {exec}}}")).unwrap().bearer, Bearer::Token(_)));
        let certificate = format!("{{client-certificate: a, client-key: b, {exec}}}");
        assert_eq!(user(&certificate).unwrap().bearer, Bearer::None);
    }

    #[test]
    fn kubernetes_point_21_what_is_not_supported_or_wrong_is_refused_by_its_place() {
        for (text, refusal) in [
            ("{as: root}", "users[alice].user.as: impersonation"),
            ("{as-groups: [a]}", "users[alice].user.as-groups: impersonation"),
            ("{as-uid: 1}", "users[alice].user.as-uid"),
            ("{as-user-extra: {a: [b]}}", "users[alice].user.as-user-extra"),
            ("{username: s3cr3t}", "users[alice].user.username: API servers"),
            ("{password: s3cr3t}", "users[alice].user.password"),
            ("{auth-provider: {name: oidc}}", "users[alice].user.auth-provider: it is not supported; use an exec"),
            ("{token: 123456}", "users[alice].user.token: it is a number, not a text"),
            ("{token: [s3cr3t]}", "users[alice].user.token: it is a list"),
            ("{token: {s3cr3t: 1}}", "users[alice].user.token: it is a map"),
            ("{token: true}", "users[alice].user.token: it is a truth value"),
            ("{token: '  '}", "users[alice].user.token: it is blank"),
            ("{tokenFile: \"a\\nb\"}", "users[alice].user.tokenFile: it is no path"),
            ("{client-certificate: c}", "users[alice].user.client-key: it is missing"),
            ("{client-key-data: YWJj}", "users[alice].user.client-certificate: it is missing"),
            ("{client-key-data: s3cr3t!}", "users[alice].user.client-key-data: it is no base64"),
            ("{exec: {}}", "users[alice].user.exec.apiVersion: it is missing"),
            ("{exec: s3cr3t}", "users[alice].user.exec: it is a text, not a map"),
            ("s3cr3t", "users[alice].user: it is a text, not a map"),
        ] {
            let error = user(text).unwrap_err();
            assert!(error.starts_with(refusal) && !error.contains("s3cr3t"), "{text}: {error}");
        }
        for (text, refusal) in [
            ("{}", "clusters[prod].cluster.server: it is missing"),
            ("{server: ''}", "clusters[prod].cluster.server: it is missing"),
            ("{server: 1}", "clusters[prod].cluster.server: it is a number"),
            ("{server: h, proxy-url: 'http://u:s3cr3t@p'}", "clusters[prod].cluster.proxy-url: a proxy is named with"),
            (
                "{server: h, insecure-skip-tls-verify: 'yes'}",
                "clusters[prod].cluster.insecure-skip-tls-verify: it is a text",
            ),
            (
                "{server: h, certificate-authority: a, insecure-skip-tls-verify: true}",
                "clusters[prod].cluster.insecure-skip-tls-verify: it contradicts",
            ),
            (
                "{server: h, certificate-authority-data: '?'}",
                "clusters[prod].cluster.certificate-authority-data: it is no base64",
            ),
            ("{server: h, extensions: 1}", "clusters[prod].cluster.extensions: it is a number, not a list"),
        ] {
            let error = cluster(text).unwrap_err();
            assert!(error.starts_with(refusal) && !error.contains("s3cr3t"), "{text}: {error}");
        }
        // What was left empty is not there, as in the official client.
        assert!(user("{as: '', username: '', auth-provider: ~}").is_ok());
        assert!(cluster("{server: h, proxy-url: '', disable-compression: true}").is_ok());
    }

    #[test]
    fn kubernetes_point_21_a_file_that_is_no_kubeconfig_is_refused() {
        for (text, refusal) in [
            ("[1]", "it is a list, not a kubeconfig"),
            ("s3cr3t", "it is a text, not a kubeconfig"),
            ("kind: Pod", "kind: it is another one than Config"),
            ("apiVersion: v2", "apiVersion: it is another one than v1"),
            ("current-context: 1", "current-context: it is a number"),
            ("users: s3cr3t", "users: it is a text, not a list"),
            ("users: [s3cr3t]", "users[0]: it is a text, not a map"),
            ("users: [{name: a}, {user: {}}]", "users[1].name: it is missing"),
            ("contexts: [{name: ''}]", "contexts[0].name: it is missing"),
            ("clusters: [{name: a}, {name: b}, {name: a}]", "clusters: \"a\" stands there twice"),
            ("users: []\nusers: []", "line 2, column 1: a key stands twice in a map"),
        ] {
            let error = document(text).unwrap_err();
            assert!(error.starts_with(refusal) && !error.contains("s3cr3t"), "{text}: {error}");
        }
        assert!(document("").unwrap().current_context.is_none());
        assert!(document("{users: ~, extra: 1, preferences: {colors: true}}").is_ok());
    }

    #[test]
    fn kubernetes_point_21_what_is_wrong_with_others_does_not_matter() {
        let text = "users: [{name: a, user: {token: t}}, {name: b, user: {token: 1}}, {name: c, user: 1}, {name: d}]";
        let document = document(text).unwrap();
        let of = |name: &str| {
            User::read(&Entry::of(document.find(Kind::User, name).unwrap(), String::new())?, Path::new(""))
        };
        assert!(of("a").is_ok() && of("b").is_err() && of("c").is_err() && of("d").unwrap().is_anonymous());
        assert!(document.find(Kind::User, "e").is_none());
    }

    #[test]
    fn kubernetes_point_21_names_in_errors_stay_in_one_line_and_are_cut() {
        let place = Kind::User.place(&format!("a\n\u{1b}[1m{}", "x".repeat(1000)));
        assert!(!place.contains('\n') && !place.contains('\u{1b}') && place.len() < 200, "{place}");
    }

    const WHOLE: &str = "clusters:\n- name: c\n  cluster: {server: 'https://h', certificate-authority-data: czNjcjN0}\n\
                         contexts: [{name: x, context: {cluster: c, user: u}}]\n\
                         users:\n- name: u\n  user:\n    token: s3cr3t\n    client-certificate-data: czNjcjN0\n    \
                         client-key-data: czNjcjN0\n- name: v\n  user:\n    exec:\n      command: c\n      apiVersion: \
                         client.authentication.k8s.io/v1\n      args: [s3cr3t]\n      env: [{name: a, value: s3cr3t}]\n";

    #[test]
    fn kubernetes_point_21_a_whole_file_is_told_without_secrets() {
        let (told, shown) = told_file(WHOLE.as_bytes());
        assert!(!told.concat().contains("s3cr3t") && !told.concat().contains("115, 51, 99"), "{told:?}");
        assert!(shown.contains(&"c".to_owned()) && told.concat().contains("Token(***)"), "{told:?}");
    }

    proptest::proptest! {
        #[test]
        fn kubernetes_point_21_a_damaged_file_is_told_without_secrets(
            at in 0..WHOLE.len(), cut in 0..40_usize, put in "[-a1 :\\n\\[\\]{}&*?|>!'\"#%@,\\x00\\xe4]{0,6}"
        ) {
            let end = (at + cut).min(WHOLE.len());
            let text = [&WHOLE.as_bytes()[..at], put.as_bytes(), &WHOLE.as_bytes()[end..]].concat();
            let (told, shown) = told_file(&text);
            if !shown.concat().contains("s3cr3t") {
                proptest::prop_assert!(!told.concat().contains("s3cr3t"), "{told:?}");
            }
        }

        #[test]
        fn kubernetes_point_21_any_bytes_are_a_kubeconfig_or_refused(bytes: Vec<u8>) {
            told_file(&bytes);
        }
    }
}
