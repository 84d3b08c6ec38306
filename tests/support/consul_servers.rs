//! Several Consul servers that are one cluster, each of which can be killed and brought back.
#![allow(dead_code)]

use std::time::{Duration, Instant};

use crate::consul::{Consul, GOSSIP, PORTS, Setup, free_ports};

/// Servers that elect a leader; all keep their state.
pub struct Servers {
    pub all: Vec<Consul>,
}

impl Servers {
    /// Starts three and waits until each knows a leader; `None` if there is no binary.
    pub fn start_three() -> Option<Self> {
        let ports: Vec<Vec<u16>> = (0..3).map(|_| free_ports(PORTS)).collect();
        // Each knows all others, whichever of them is there when it comes back.
        let join: Vec<String> = ports.iter().map(|ports| format!("\"127.0.0.1:{}\"", ports[GOSSIP])).collect();
        let configuration = format!(
            "retry_join = [{}] retry_interval = \"1s\" leave_on_terminate = false \
             gossip_lan {{ probe_interval = \"500ms\" probe_timeout = \"250ms\" }}",
            join.join(",")
        );
        let mut all = Vec::new();
        for ports in ports {
            let configuration = configuration.clone();
            all.push(Consul::begin(&Setup { kept: true, servers: 3, configuration, ports, ..Setup::default() })?);
        }
        for server in &all {
            server.wait_for_leader();
        }
        Some(Self { all })
    }

    /// The number of the one that leads, as the server of that number sees it.
    pub fn leader(&self, asked: usize) -> usize {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Ok((200, leader)) = self.all[asked].request("GET", "/v1/status/leader", "")
                && let Some(found) =
                    self.all.iter().position(|server| leader.trim_matches(['"', '\n']) == server.server_address())
            {
                return found;
            }
            assert!(Instant::now() < deadline, "no leader: {}", self.all[asked].log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the server of that number knows a leader that is not `gone`.
    pub fn wait_for_leader_other_than(&self, asked: usize, gone: usize) -> usize {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let leader = self.leader(asked);
            if leader != gone {
                return leader;
            }
            assert!(Instant::now() < deadline, "no other leader: {}", self.all[asked].log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
