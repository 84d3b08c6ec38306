//! What a definition takes from a kubeconfig, and how that is followed.

use std::ffi::OsString;
use std::path::PathBuf;

use super::*;
use crate::id::ProviderKind;
use crate::provider::ProviderDescriptor;
use crate::testkit::FakeClock;

const PORTS: (u16, u16) = (80, 443);

/// A folder with a kubeconfig.
struct Folder(tempfile::TempDir);

impl Folder {
    fn with(content: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("config", content);
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Replaces the file, so that it is another one whatever the clock says.
    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.path("new"), content).unwrap();
        std::fs::rename(self.path("new"), self.path(name)).unwrap();
    }

    fn descriptor(&self) -> ProviderDescriptor {
        bare().parameter("kubeconfig", self.path("config").display().to_string())
    }
}

fn bare() -> ProviderDescriptor {
    ProviderDescriptor::new("k8s", ProviderKind::kubernetes()).unwrap().parameter("credentials", "kubeconfig")
}

fn open_with(descriptor: &ProviderDescriptor, variables: &[(&str, OsString)]) -> Result<Opened, ProvisioningError> {
    let lookup = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone());
    open(&Source::of_definition(descriptor), &lookup, PORTS)
}

fn opened(descriptor: &ProviderDescriptor) -> Result<Opened, ProvisioningError> {
    open_with(descriptor, &[])
}

fn refused(descriptor: &ProviderDescriptor) -> (ErrorCode, String, String) {
    let error = opened(descriptor).map(drop).unwrap_err();
    assert!(!error.to_string().contains("s3cr3t"), "{error}");
    (error.code(), error.field().unwrap().to_owned(), error.detail().to_owned())
}

const CONTEXTS: &str = "current-context: one\ncontexts:\n- {name: one, context: {cluster: c, user: u, namespace: shop}}\n\
                        - {name: two, context: {cluster: d, user: v}}\n";

/// A kubeconfig of that cluster and user.
fn config(cluster: &str, user: &str) -> String {
    format!(
        "{CONTEXTS}clusters: [{{name: c, cluster: {cluster}}}, {{name: d, cluster: {{server: 'https://d'}}}}]\n\
         users: [{{name: u, user: {user}}}, {{name: v, user: {{token: second}}}}]\n"
    )
}

fn login(opened: &Opened) -> Login {
    Login::new(Arc::clone(&opened.kubeconfig), FakeClock::new())
}

fn token(login: &mut Login) -> Result<Option<String>, ErrorCode> {
    let read = login.read(&CancelToken::new());
    read.map(|token| token.map(|token| token.expose().to_owned())).map_err(|error| error.code())
}

const SERVER: &str = "{server: 'https://h:6443'}";

#[test]
fn kubernetes_point_21_the_current_context_is_used_or_the_one_that_is_named() {
    let folder = Folder::with(&config("{server: 'https://rancher/k8s/clusters/c-1/'}", "{token: first}"));
    let one = opened(&folder.descriptor()).unwrap();
    assert_eq!(
        (one.target.base().as_str(), one.namespace.as_deref()),
        ("https://rancher:443/k8s/clusters/c-1", Some("shop"))
    );
    assert_eq!(token(&mut login(&one)), Ok(Some("first".to_owned())));
    let two = opened(&folder.descriptor().parameter("context", "two")).unwrap();
    assert_eq!((two.target.base().as_str(), two.namespace.as_deref()), ("https://d:443", None));
    assert_eq!(token(&mut login(&two)), Ok(Some("second".to_owned())));
    let (code, field, detail) = refused(&folder.descriptor().parameter("context", "three"));
    assert_eq!((code, field.as_str()), (ErrorCode::InvalidValue, "context"));
    assert!(detail.contains("contexts[three].context: it is not there; there: one, two"), "{detail}");
    folder.write("config", "contexts: []");
    assert_eq!(refused(&folder.descriptor()).0, ErrorCode::MissingField);
}

#[test]
fn kubernetes_point_21_the_environment_names_the_files_where_the_definition_does_not() {
    let folder = Folder::with(&config(SERVER, "{token: first}"));
    folder.write("before", "current-context: two");
    let list = std::env::join_paths(["absent", "before", "config"].map(|name| folder.path(name))).unwrap();
    let merged = open_with(&bare(), &[("KUBECONFIG", list)]).unwrap();
    assert_eq!(merged.target.base(), "https://d:443");
    std::fs::create_dir(folder.path(".kube")).unwrap();
    std::fs::rename(folder.path("config"), folder.path(".kube/config")).unwrap();
    let home = folder.0.path().as_os_str().to_owned();
    let of_home = open_with(&bare(), &[("KUBECONFIG", OsString::new()), ("HOME", home)]).unwrap();
    assert_eq!(of_home.target.base(), "https://h:6443");
    let (code, field, detail) = refused(&bare());
    assert_eq!((code, field.as_str()), (ErrorCode::InvalidConfig, "kubeconfig"));
    assert!(detail.contains("neither KUBECONFIG nor HOME"), "{detail}");
}

#[test]
fn kubernetes_point_21_what_the_kubeconfig_says_is_not_said_twice() {
    let folder = Folder::with(&config(SERVER, "{token: s3cr3t}"));
    let invalid = |descriptor: ProviderDescriptor, field: &str| {
        let (code, refused, detail) = refused(&descriptor);
        assert_eq!((code, refused.as_str()), (ErrorCode::InvalidValue, field), "{detail}");
    };
    invalid(folder.descriptor().endpoint("https://h"), "endpoints");
    invalid(folder.descriptor().credential(Credential::TokenFile("/t".into())), "credential");
    for field in ["ca-file", "ca-path", "client-cert", "client-key", "service-account"] {
        invalid(folder.descriptor().parameter(field, "/x"), field);
    }
    invalid(folder.descriptor().parameter("tls-server-name", "a b"), "tls-server-name");
    invalid(folder.descriptor().parameter("kubeconfig", "a\nb"), "kubeconfig");
    assert_eq!(refused(&bare().parameter("kubeconfig", "")).0, ErrorCode::MissingField);
}

#[test]
fn kubernetes_point_21_an_unchecked_server_is_refused_unless_the_definition_says_so_too() {
    let folder = Folder::with(&config("{server: 'https://h', insecure-skip-tls-verify: true}", "{token: s3cr3t}"));
    let (code, field, detail) = refused(&folder.descriptor());
    assert_eq!((code, field.as_str()), (ErrorCode::InvalidConfig, "kubeconfig"));
    assert!(detail.starts_with("clusters[c].cluster.insecure-skip-tls-verify: ") && detail.contains("tls-verify"));
    opened(&folder.descriptor().parameter("tls-verify", "off")).unwrap();
    folder.write("config", &config("{server: 'https://h', certificate-authority: ca.pem}", "{}"));
    assert_eq!(refused(&folder.descriptor().parameter("tls-verify", "off")).1, "tls-verify");
}

#[test]
fn kubernetes_point_21_what_is_wrong_in_the_file_is_named_by_its_place() {
    let folder = Folder::with("");
    for (content, place) in [
        (config("{server: 'h'}", "{token: s3cr3t}"), "clusters[c].cluster.server: "),
        (config("{server: 'https://u:s3cr3t@h'}", "{}"), "clusters[c].cluster.server: a user or password"),
        (config("{server: 'https://h?s3cr3t'}", "{}"), "clusters[c].cluster.server: a query"),
        (
            config("{server: 'http://h'}", "{token: s3cr3t}"),
            "clusters[c].cluster.server: credentials are sent over https",
        ),
        (config("{server: 'unix:///s3cr3t'}", "{}"), "clusters[c].cluster.server: "),
        (
            config("{server: 'https://h', tls-server-name: 's3cr3t s3cr3t'}", "{}"),
            "clusters[c].cluster.tls-server-name: ",
        ),
        (config(SERVER, "{as: s3cr3t}"), "users[u].user.as: "),
        (config("~", "{}"), "clusters[c].cluster: it is missing"),
        (CONTEXTS.to_owned(), "clusters[c].cluster: it is not there; there: there is none"),
        (CONTEXTS.replace("cluster: c, ", ""), "contexts[one].context.cluster: it is missing"),
        (config(SERVER, "{}").replace(", user: u,", ", user: [],"), "contexts[one].context.user: it is a list"),
        (CONTEXTS.replace("current-context: one", "current-context: x"), "contexts[x].context: it is not there"),
        ("s3cr3t: [".to_owned(), "file "),
    ] {
        folder.write("config", &content);
        let (code, field, detail) = refused(&folder.descriptor());
        assert_eq!((code, field.as_str()), (ErrorCode::InvalidConfig, "kubeconfig"), "{content}: {detail}");
        assert!(detail.starts_with(place), "{content}: {detail}");
    }
    folder.write("config", &config("{server: 'http://127.0.0.1:1'}", "{token: t}"));
    opened(&folder.descriptor()).unwrap();
    assert_eq!(refused(&folder.descriptor().parameter("tls-verify", "on")).1, "tls-verify");
    std::fs::remove_file(folder.path("config")).unwrap();
    assert!(refused(&folder.descriptor()).2.contains("not found"));
    std::fs::create_dir(folder.path("config")).unwrap();
    assert!(refused(&folder.descriptor()).2.contains("not a regular file"));
}

#[test]
fn kubernetes_point_21_a_context_without_a_user_or_with_one_that_is_not_there_is_nobodys() {
    let folder = Folder::with("");
    for user in ["", ", user: ''", ", user: ~", ", user: nobody"] {
        let content = config("{server: 'http://h'}", "{token: s3cr3t}").replace(", user: u", user);
        folder.write("config", &content);
        let opened = opened(&folder.descriptor()).unwrap_or_else(|error| panic!("{user:?}: {error}"));
        assert_eq!(token(&mut login(&opened)), Ok(None), "{user:?}");
    }
}

#[test]
fn kubernetes_point_21_a_user_that_goes_leaves_the_last_good_credentials_and_one_that_comes_is_taken() {
    let whole = config(SERVER, "{token: first}");
    let without = whole.replace("name: u,", "name: w,");
    let folder = Folder::with(&whole);
    let kept = opened(&folder.descriptor()).unwrap();
    let mut kept = login(&kept);
    assert_eq!(token(&mut kept), Ok(Some("first".to_owned())));
    folder.write("config", &without);
    assert_eq!(token(&mut kept), Ok(Some("first".to_owned())), "a file that is half written makes nobody of no one");
    let nobody = opened(&folder.descriptor()).unwrap();
    let mut nobody = login(&nobody);
    assert_eq!(token(&mut nobody), Ok(None));
    folder.write("config", &whole);
    assert_eq!(token(&mut nobody), Ok(Some("first".to_owned())));
}

#[test]
fn kubernetes_point_21_a_changed_token_is_followed_and_another_server_or_context_is_not() {
    let folder = Folder::with(&config(SERVER, "{token: first}"));
    let opened = opened(&folder.descriptor()).unwrap();
    let mut login = login(&opened);
    let mut after = |content: &str| {
        folder.write("config", content);
        token(&mut login).unwrap().unwrap()
    };
    assert_eq!(after(&config(SERVER, "{token: rotated}")), "rotated");
    let two = config(SERVER, "{token: third}").replace("current-context: one", "current-context: two");
    assert_eq!(after(&two), "third", "the context that was current stays ours");
    for unusable in [
        config("{server: 'https://evil'}", "{token: for-evil}"),
        config("{server: 'https://h:6443', tls-server-name: evil}", "{token: for-evil}"),
        config("{server: 'https://h:6443', insecure-skip-tls-verify: true}", "{token: for-evil}"),
        config(SERVER, "{token: 1}"),
        "users: [".to_owned(),
        String::new(),
        "x".repeat(2_000_000),
    ] {
        assert_eq!(after(&unusable), "third", "{}", unusable.get(..100).unwrap_or(&unusable));
    }
    assert_eq!(after(&config(SERVER, "{token: good-again}")), "good-again");
    std::fs::remove_file(folder.path("config")).unwrap();
    assert_eq!(token(&mut login), Ok(Some("good-again".to_owned())));
}

#[test]
fn kubernetes_point_21_a_token_file_is_read_anew_and_relative_to_the_kubeconfig() {
    let folder = Folder::with(&config(SERVER, "{tokenFile: token, token: instead}"));
    let opened = opened(&folder.descriptor()).unwrap();
    let mut login = login(&opened);
    assert_eq!(token(&mut login), Ok(Some("instead".to_owned())), "as in the official client");
    folder.write("token", "first\n");
    assert_eq!(token(&mut login), Ok(Some("first".to_owned())));
    folder.write("token", "second");
    assert_eq!(token(&mut login), Ok(Some("second".to_owned())));
    std::fs::remove_file(folder.path("token")).unwrap();
    assert_eq!(token(&mut login), Ok(Some("second".to_owned())), "the last good one");
    folder.write("config", &config(SERVER, "{tokenFile: other}"));
    assert_eq!(token(&mut login), Err(ErrorCode::TokenUnreadable));
}

#[test]
fn kubernetes_point_21_certificates_are_replaced_with_the_file_and_only_then() {
    let pair = |data: &str| format!("{{client-certificate-data: {data}, client-key-data: {data}}}");
    let folder = Folder::with(&config("{server: 'https://h:6443', certificate-authority-data: YWFh}", &pair("YWFh")));
    let opened = opened(&folder.descriptor()).unwrap();
    let held = opened.kubeconfig.held.clone();
    let mut login = login(&opened);
    let mut number = || {
        assert_eq!(token(&mut login), Ok(None));
        held.current().0
    };
    assert_eq!(number(), 0);
    folder
        .write("config", &config("{server: 'https://h:6443', certificate-authority-data: YWFh, x: 1}", &pair("YWFh")));
    assert_eq!(number(), 0, "the same");
    folder.write("config", &config("{server: 'https://h:6443', certificate-authority-data: YWFh}", &pair("YmJi")));
    assert_eq!(number(), 1);
    folder.write("config", &config("{server: 'https://h:6443', certificate-authority-data: YmJi}", &pair("YmJi")));
    assert_eq!(number(), 2);
    let shown = format!("{:?} {:?} {:?}", held, opened.kubeconfig, login_of(&opened));
    assert!(!shown.contains("YmJi") && !shown.contains("98, 98, 98"), "{shown}");
}

fn login_of(opened: &Opened) -> Login {
    login(opened)
}

#[test]
fn kubernetes_point_21_a_definition_is_checked_without_reading_the_file() {
    use crate::providers::kubernetes::config::Config;

    let named = bare().parameter("kubeconfig", "/no/such/file").parameter("cluster", "orders");
    Config::check(&named).unwrap();
    assert!(Config::read(&named).is_err());
    let wrong = |descriptor: ProviderDescriptor| {
        let error = Config::check(&descriptor).unwrap_err();
        error.field().unwrap().to_owned()
    };
    assert_eq!(wrong(named.clone().parameter("context", "")), "context");
    assert_eq!(wrong(named.clone().parameter("page-size", "0")), "page-size");
    assert_eq!(wrong(named.clone().parameter("namespace", "No")), "namespace");
    assert_eq!(wrong(named.clone().parameter("tls-verify", "no")), "tls-verify");
    assert_eq!(wrong(named.clone().parameter("no-such", "x")), "no-such");
    assert_eq!(wrong(named.endpoint("https://h")), "endpoints");
}

#[test]
fn kubernetes_point_21_the_namespace_is_the_definitions_or_the_contexts_or_the_default() {
    use crate::providers::kubernetes::config::Config;

    let folder = Folder::with(&config(SERVER, "{}"));
    let namespace = |descriptor: &ProviderDescriptor| {
        let config = Config::read(&descriptor.clone().parameter("cluster", "orders"))?;
        config.namespace()
    };
    assert_eq!(namespace(&folder.descriptor()).unwrap(), "shop");
    assert_eq!(namespace(&folder.descriptor().parameter("context", "two")).unwrap(), "default");
    assert_eq!(namespace(&folder.descriptor().parameter("namespace", "own")).unwrap(), "own");
    folder.write("config", &config(SERVER, "{}").replace("shop", "../s3cr3t"));
    let error = namespace(&folder.descriptor()).unwrap_err();
    assert_eq!((error.code(), error.field()), (ErrorCode::InvalidConfig, Some("kubeconfig")));
    assert!(!error.to_string().contains("s3cr3t"), "{error}");
}
