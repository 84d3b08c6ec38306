//! Rights at a real API server: roles given to users and taken away, and service accounts with tokens that can be revoked.
#![allow(dead_code)]

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::kubernetes::{Kubernetes, NAMESPACE};

/// The server remembers for 10 s what a token was worth.
const REMEMBERED: Duration = Duration::from_secs(30);

fn rbac(kind: &str) -> String {
    format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/{kind}")
}

fn name(user: &str, resource: &str, verbs: &[&str]) -> String {
    format!("{user}-{resource}-{}", verbs.join("-"))
}

impl Kubernetes {
    /// Gives a user these rights, as an operator would: `verbs` of `resource` in the namespace.
    pub fn allow(&self, user: &str, group: &str, resource: &str, verbs: &[&str]) {
        let name = name(user, resource, verbs);
        let rules = json!([{"apiGroups": [group], "resources": [resource], "verbs": verbs}]);
        self.call("POST", &rbac("roles"), &json!({"metadata": {"name": name}, "rules": rules}));
        let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name});
        let subjects = json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]);
        let binding = json!({"metadata": {"name": name}, "roleRef": role, "subjects": subjects});
        self.call("POST", &rbac("rolebindings"), &binding);
        self.wait_allowed(user, group, resource, verbs, true);
    }

    /// Takes away what [`allow`](Self::allow) gave.
    pub fn forbid(&self, user: &str, group: &str, resource: &str, verbs: &[&str]) {
        for kind in ["rolebindings", "roles"] {
            self.call("DELETE", &format!("{}/{}", rbac(kind), name(user, resource, verbs)), &Value::Null);
        }
        self.wait_allowed(user, group, resource, verbs, false);
    }

    /// Waits until what has been taken away is.
    pub fn await_forbidden(&self, user: &str, group: &str, resource: &str, verbs: &[&str]) {
        self.wait_allowed(user, group, resource, verbs, false);
    }

    /// The server learns of its own roles by a watch, too.
    fn wait_allowed(&self, user: &str, group: &str, resource: &str, verbs: &[&str], allowed: bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        for verb in verbs {
            let attributes = json!({"namespace": NAMESPACE, "group": group, "resource": resource, "verb": verb});
            let review = json!({"spec": {"user": user, "resourceAttributes": attributes}});
            let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
            while self.call("POST", path, &review)["status"]["allowed"] != json!(allowed) {
                assert!(Instant::now() < deadline, "{user} may {verb} {resource}: still not {allowed}");
            }
        }
    }

    /// Whether the server knows the token at present.
    fn knows(&self, token: &str) -> bool {
        let review = json!({"spec": {"token": token}});
        let answer = self.call("POST", "/apis/authentication.k8s.io/v1/tokenreviews", &review);
        answer["status"]["authenticated"] == json!(true)
    }

    fn wait_known(&self, token: &Token, known: bool) {
        let deadline = Instant::now() + REMEMBERED;
        while self.knows(&token.value) != known {
            assert!(Instant::now() < deadline, "token {}: still not {known}", token.secret);
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A service account.
pub struct Account<'a> {
    server: &'a Kubernetes,
    name: String,
}

/// A token of it, which is good as long as the secret of that name exists.
pub struct Token {
    secret: String,
    pub value: String,
}

impl<'a> Account<'a> {
    pub fn new(server: &'a Kubernetes, name: &str) -> Self {
        server.call("POST", &of_namespace("serviceaccounts"), &json!({"metadata": {"name": name}}));
        Self { server, name: name.to_owned() }
    }

    /// Its user, as roles name it.
    pub fn user(&self) -> String {
        format!("system:serviceaccount:{NAMESPACE}:{}", self.name)
    }

    /// Another token, as the kubelet asks for it; returns when the server takes it.
    pub fn token(&self, secret: &str) -> Token {
        self.server.call("POST", &of_namespace("secrets"), &json!({"metadata": {"name": secret}}));
        let bound = json!({"apiVersion": "v1", "kind": "Secret", "name": secret});
        let request = json!({"spec": {"boundObjectRef": bound, "expirationSeconds": 600}});
        let path = format!("{}/{}/token", of_namespace("serviceaccounts"), self.name);
        let answer = self.server.call("POST", &path, &request);
        let value = answer["status"]["token"].as_str().unwrap().to_owned();
        let token = Token { secret: secret.to_owned(), value };
        self.server.wait_known(&token, true);
        token
    }

    /// Returns when the server no longer takes it.
    pub fn revoke(&self, token: &Token) {
        self.server.call("DELETE", &format!("{}/{}", of_namespace("secrets"), token.secret), &Value::Null);
        self.server.wait_known(token, false);
    }
}

fn of_namespace(kind: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/{kind}")
}
