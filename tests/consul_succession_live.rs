//! Definitions that are edited while the node is registered, on real Consul agents: the registration of the new one is
//! made, then the former one makes way. Whoever watches sees nobody leave, and nothing is left behind.
#![cfg(feature = "consul")]

#[path = "support/consul.rs"]
mod consul;
#[path = "support/consul_acl.rs"]
mod consul_acl;
#[path = "support/consul_servers.rs"]
mod consul_servers;
#[path = "support/watching.rs"]
mod watching;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cluster_provisioning::{
    CancelToken, ClusterNode, ClusterProvider, ConsulFactory, Credential, ProviderDescriptor, ProviderEvent,
    ProviderFactory, Registration, Secret, Secrets,
};
use consul::{Consul, Setup};
use consul_acl::Token;
use consul_servers::Servers;
use watching::{Watching, environment, join, provider};

const SERVICE: &str = "orders";
const SOON: Duration = Duration::from_secs(10);
const BUDGET: Duration = Duration::from_secs(2);
/// What needs no look at the catalog is done at once.
const PROMPT: Duration = Duration::from_millis(500);
/// How long a check passes without a heartbeat, and until that shows.
const LAPSE: Duration = Duration::from_secs(4);

fn node() -> ClusterNode {
    ClusterNode::builder("n1", "127.0.0.1", 7001).incarnation(7).kind("user").build().unwrap()
}

fn definition(url: &str) -> ProviderDescriptor {
    ConsulFactory::descriptor("consul", url, SERVICE).unwrap()
}

/// A provider whose registration is kept alive on a thread of its own, as the service does.
struct Member {
    provider: Arc<dyn ClusterProvider>,
    token: Option<String>,
    stop: CancelToken,
    thread: JoinHandle<Box<dyn Registration>>,
}

impl Member {
    fn start(descriptor: &ProviderDescriptor, token: Option<String>, former: Option<&Member>) -> Self {
        let mut environment = environment(Some(node()));
        environment.secrets = Secrets::new(token.iter().map(|token| ("consul".to_owned(), Secret::new(token))));
        let provider = match former {
            None => ConsulFactory.create(descriptor, &environment).unwrap(),
            Some(former) => ConsulFactory.replace(descriptor, &environment, &*former.provider).unwrap(),
        };
        provider.check_connectivity(&CancelToken::new()).unwrap();
        let mut registration = join(&*provider, &node()).unwrap();
        let stop = CancelToken::new();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.wait(registration.renew_interval()) {
                if let Err(error) = registration.renew(&stopped) {
                    println!("{error}");
                }
            }
            registration
        });
        Self { provider, token, stop, thread }
    }

    /// Ends the heartbeats.
    fn release(self) -> Box<dyn Registration> {
        self.stop.cancel();
        self.thread.join().unwrap()
    }

    /// The definition is edited: the new registration is made, then the former one retires. How long that took.
    fn edit(self, descriptor: &ProviderDescriptor) -> (Self, Duration) {
        let new = Self::start(descriptor, self.token.clone(), Some(&self));
        let mut former = self.release();
        let started = Instant::now();
        former.retire(BUDGET).unwrap();
        (new, started.elapsed())
    }
}

/// Watches without a registration of its own, and must never see the node leave.
struct Witness(Watching);

impl Witness {
    fn start(descriptor: &ProviderDescriptor) -> Self {
        let witness = Self(Watching::start(&provider(descriptor)));
        witness.0.expect_members(&["n1", "n2"], SOON);
        witness
    }

    /// Lets all heartbeats lapse that nobody sends any more, and looks at everything that came meanwhile.
    fn saw_nobody_leave(&self) {
        // Nothing is waited for: it is the time itself in which nothing may happen.
        std::thread::sleep(LAPSE);
        for (_, event) in self.0.events.try_iter() {
            match event {
                ProviderEvent::Snapshot { members, .. } => assert_eq!(members.len(), 2, "{members:?}"),
                ProviderEvent::Heartbeat { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

/// The hosts on which the node is registered.
fn hosts(consul: &Consul) -> Vec<String> {
    let entries = consul.get(&format!("/v1/health/service/{SERVICE}?consistent"));
    let own = entries.as_array().unwrap().iter().filter(|entry| entry["Service"]["ID"] == "n1");
    own.map(|entry| entry["Node"]["Node"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn consul_point_19_edits_that_stay_on_one_agent_are_seen_by_nobody_whatever_its_url_is() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("consul.sock");
    let configuration = format!("addresses {{ http = \"127.0.0.1 unix://{}\" }}", socket.display());
    let Some(consul) = Consul::start_with(&Setup { configuration, ..Setup::default() }) else { return };
    consul.register(SERVICE, "n2", 7002);
    let mut member = Member::start(&definition(&consul.url()), None, None);
    let witness = Witness::start(&definition(&consul.url()));
    let by_name = consul.url().replace("127.0.0.1", "localhost");
    for edited in [
        definition(&consul.url()).parameter("wait", "5m"),
        definition(&by_name),
        definition(&format!("unix://{}", socket.display())),
        definition(&consul.url()).parameter("ttl", "9s"),
        definition(&consul.url()),
    ] {
        let (new, took) = member.edit(&edited);
        println!("{:?} {:?}: retired in {took:?}", edited.endpoints, edited.parameters);
        assert!(took < PROMPT, "{took:?}");
        assert_eq!(hosts(&consul), [consul.node_name()]);
        witness.saw_nobody_leave();
        member = new;
    }
    member.release().leave(BUDGET).unwrap();
    assert!(hosts(&consul).is_empty());
    witness.0.expect_members(&["n2"], SOON);
}

#[test]
fn consul_point_19_an_edit_to_another_agent_of_the_cluster_removes_the_former_registration_and_nobody_sees_a_leave() {
    let Some(servers) = Servers::start_three() else { return };
    let [first, second, third] = &servers.all[..] else { panic!("three servers") };
    third.register(SERVICE, "n2", 7002);
    let member = Member::start(&definition(&first.url()), None, None);
    let witness = Witness::start(&definition(&third.url()));
    let (member, took) = member.edit(&definition(&second.url()));
    println!("to another agent: retired in {took:?}");
    assert_eq!(hosts(third), [second.node_name()]);
    witness.saw_nobody_leave();
    // And back again, where the agent has an entry of its own of before.
    let (member, took) = member.edit(&definition(&first.url()));
    println!("and back: retired in {took:?}");
    assert_eq!(hosts(third), [first.node_name()]);
    witness.saw_nobody_leave();
    member.release().leave(BUDGET).unwrap();
    witness.0.expect_members(&["n2"], SOON);
    assert!(hosts(third).is_empty());
}

#[test]
fn consul_point_19_an_edit_to_another_cluster_leaves_the_former_registration_to_expire() {
    let (Some(first), Some(second)) = (Consul::start(), Consul::start()) else { return };
    for consul in [&first, &second] {
        consul.register(SERVICE, "n2", 7002);
    }
    let member = Member::start(&definition(&first.url()), None, None);
    let witness = Witness::start(&definition(&first.url()));
    let (member, took) = member.edit(&definition(&second.url()));
    println!("to another cluster: given up after {took:?}");
    assert!(took <= BUDGET + PROMPT, "{took:?}");
    assert_eq!((hosts(&first), hosts(&second)), (vec![first.node_name()], vec![second.node_name()]));
    witness.0.expect_members(&["n2"], LAPSE + SOON);
    assert_eq!(second.passing(SERVICE), ["n1", "n2"]);
    member.release().leave(BUDGET).unwrap();
}

#[test]
fn consul_point_19_and_10_the_documented_rights_are_enough_to_make_way() {
    let Some(consul) = Consul::start_with(&consul_acl::setup()) else { return };
    consul_acl::wait_ready(&consul);
    let rules = "service \"orders\" { policy = \"write\" } node_prefix \"\" { policy = \"read\" }";
    let token = Token::with_rules(&consul, "member", rules).secret;
    let with_token = definition(&consul.url()).credential(Credential::Secret("consul".into()));
    let member = Member::start(&with_token, Some(token), None);
    let (member, took) = member.edit(&with_token.clone().parameter("wait", "5m"));
    assert!(took < PROMPT, "{took:?}");
    assert_eq!(hosts(&consul), [consul.node_name()]);
    member.release().leave(BUDGET).unwrap();
    assert!(hosts(&consul).is_empty());
}

#[test]
fn consul_point_19_what_an_agent_was_told_while_it_stood_still_is_undone_by_leaving() {
    let Some(consul) = Consul::start() else { return };
    let environment = environment(Some(node()));
    let provider = ConsulFactory.create(&definition(&consul.url()), &environment).unwrap();
    let mut registration = provider.registration(&node()).unwrap();
    // It accepts, and answers to nothing.
    consul.signal("STOP");
    let cancel = CancelToken::new();
    let stop = cancel.clone();
    let joining = std::thread::spawn(move || {
        let failed = registration.join(&cancel).is_err();
        (failed, registration)
    });
    // Nothing tells when the request has left.
    std::thread::sleep(Duration::from_millis(300));
    stop.cancel();
    let (failed, mut registration) = joining.join().unwrap();
    assert!(failed, "it was broken off");
    let leaving = std::thread::spawn(move || registration.leave(SOON));
    std::thread::sleep(Duration::from_millis(300));
    consul.signal("CONT");
    leaving.join().unwrap().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(hosts(&consul).is_empty(), "{:?}", hosts(&consul));
}
