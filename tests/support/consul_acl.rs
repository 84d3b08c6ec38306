//! Rights in a Consul agent that denies by default: policies and tokens, made and taken back over the API.
#![allow(dead_code)]

use serde_json::{Value, json};

use crate::consul::{Consul, Setup};

/// The token that may do everything.
pub const MASTER: &str = "root";

/// An agent that denies whatever no token allows. Its own requests have all rights.
pub fn setup() -> Setup {
    let configuration = "acl { enabled = true default_policy = \"deny\" down_policy = \"deny\" \
                         tokens { master = \"root\" agent = \"root\" } }";
    Setup { configuration: configuration.to_owned(), token: MASTER.to_owned(), ..Setup::default() }
}

/// Waits until the agent's rights are set up, which it does after it leads.
pub fn wait_ready(consul: &Consul) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        if matches!(consul.request("GET", "/v1/acl/token/self", ""), Ok((200, _))) {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "no rights: {}", consul.log());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// A token whose rights can be changed, and which can be revoked.
pub struct Token {
    policy: String,
    name: String,
    accessor: String,
    /// What is sent with requests.
    pub secret: String,
}

impl Token {
    /// A token with these rules alone.
    pub fn with_rules(consul: &Consul, name: &str, rules: &str) -> Self {
        let body = json!({"Name": name, "Rules": rules}).to_string();
        let policy = text(&answer(&consul.put("/v1/acl/policy", &body)), "ID");
        let body = json!({"Description": name, "Policies": [{"ID": policy}]}).to_string();
        let token = answer(&consul.put("/v1/acl/token", &body));
        Self { policy, name: name.to_owned(), accessor: text(&token, "AccessorID"), secret: text(&token, "SecretID") }
    }

    /// Gives it other rules.
    pub fn set_rules(&self, consul: &Consul, rules: &str) {
        let body = json!({"ID": self.policy, "Name": self.name, "Rules": rules}).to_string();
        consul.put(&format!("/v1/acl/policy/{}", self.policy), &body);
    }

    /// Makes it unknown.
    pub fn revoke(&self, consul: &Consul) {
        let (status, body) = consul.request("DELETE", &format!("/v1/acl/token/{}", self.accessor), "").unwrap();
        assert_eq!(status, 200, "{body}");
    }

    /// Makes it known again, with the same secret.
    pub fn restore(&mut self, consul: &Consul) {
        let body = json!({"Description": self.name, "SecretID": self.secret, "Policies": [{"ID": self.policy}]});
        self.accessor = text(&answer(&consul.put("/v1/acl/token", &body.to_string())), "AccessorID");
    }
}

fn answer(body: &str) -> Value {
    serde_json::from_str(body).unwrap()
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_else(|| panic!("no {field}: {value}")).to_owned()
}
