//! What an operator is advised, read as if nothing else were known: it names the remedy of this very error.

#[path = "support/running.rs"]
mod running;

use std::sync::Arc;
use std::time::Duration;

use cluster_provisioning::*;
use running::{Company, played};

fn advised(error: &ProvisioningError, code: ErrorCode, words: &str) {
    assert!(error.code() == code && error.advice().contains(words), "{words}: {error}");
    assert!(error.to_string().ends_with(error.advice()), "{error}");
    let repeated = error.detail().contains(error.advice()) || error.advice().contains(error.detail());
    assert!(!repeated, "the advice is more than the error: {error}");
}

fn refused(builder: ServiceBuilder) -> ProvisioningError {
    builder.join_timeout(Duration::from_millis(200)).start().unwrap_err()
}

fn of_kind(kind: &str) -> ProviderDescriptor {
    ProviderDescriptor::new("p", ProviderKind::new(kind).unwrap()).unwrap()
}

#[test]
fn p5_5_what_a_definition_lacks_is_advised_as_it_can_be_given() {
    let start = |definition| refused(ClusterProvisioningService::builder().provider(definition));
    advised(&start(of_kind("etcd")), ErrorCode::UnknownKind, "register a factory");
    let secret = of_kind("etcd").credential(Credential::Secret("token".to_owned()));
    advised(&start(secret), ErrorCode::TokenUnreadable, "ServiceBuilder::secret");
    let twice = refused(ClusterProvisioningService::builder().provider(of_kind("x")).provider(of_kind("x")));
    advised(&twice, ErrorCode::DuplicateName, "a name of its own");
    advised(&start(of_kind("etcd").parameter("", "x")), ErrorCode::MissingField, "or remove it");
}

#[cfg(feature = "consul")]
#[test]
fn p5_5_what_the_environment_lacks_is_not_advised_as_a_field() {
    let consul = ConsulFactory::descriptor("p", "http://127.0.0.1:1", "orders").unwrap();
    let token = consul.credential(Credential::TokenEnv("NO_SUCH_VARIABLE".to_owned()));
    let error = refused(ClusterProvisioningService::builder().provider(token));
    advised(&error, ErrorCode::TokenUnreadable, "set the variable");
    let unknown = ConsulFactory::descriptor("p", "http://no-such-host.invalid:8500", "orders").unwrap();
    let builder = ClusterProvisioningService::builder().connectivity_timeout(Duration::from_secs(3));
    let error = refused(builder.provider(unknown));
    // Where no name can be resolved the answer may be late.
    if error.code() == ErrorCode::BackendUnavailable {
        advised(&error, ErrorCode::BackendUnavailable, "the host's name");
    }
}

#[cfg(feature = "kubernetes")]
#[test]
fn p5_5_outside_of_a_pod_it_is_advised_how_else_to_reach_a_cluster() {
    let pods = of_kind("kubernetes").parameter("cluster", "orders").parameter("port", "7001");
    let error = refused(ClusterProvisioningService::builder().provider(pods));
    advised(&error, ErrorCode::MissingField, "name the API server's URL");
    assert_eq!(error.field(), Some("KUBERNETES_SERVICE_HOST"));
}

#[test]
fn p1_5_p5_5_a_store_that_is_open_twice_blames_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("providers.jsonl");
    let company = Company::new();
    company.role("a").show(&["n1"]);
    let builder = || {
        let builder = ClusterProvisioningService::builder().factory(Arc::clone(&company) as Arc<dyn ProviderFactory>);
        builder.provider(played("a", 1)).store_file(&path)
    };
    let _service = builder().start().unwrap();
    let error = refused(builder());
    advised(&error, ErrorCode::StoreLocked, "drop the former one");
    assert!(error.detail().contains("locked by this process"), "{error}");
}
