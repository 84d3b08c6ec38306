//! When whoever is shown under the local node's id is another process.
//!
//! It is one if it is registered in a later life, or in the same life at another place. One in an earlier life is what was
//! there before, and one in the same life at the same place is the local node itself.

use std::net::IpAddr;

use crate::topology::ClusterNode;

/// Whether `shown`, which has the local node's id, is another process.
pub(in crate::providers) fn is_rival(shown: &ClusterNode, local: &ClusterNode) -> bool {
    let (life, ours) = (shown.incarnation(), local.incarnation());
    life > ours || (life == ours && !is_same_place(shown, local))
}

/// Addresses are compared as addresses: they may be written in several ways.
fn is_same_place(shown: &ClusterNode, local: &ClusterNode) -> bool {
    let [shown_at, local_at] = [shown, local].map(|node| node.address());
    let ip = |text: &str| text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
    let same = shown_at == local_at || ip(shown_at).is_some_and(|shown| ip(local_at) == Some(shown));
    same && shown.port() == local.port()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(incarnation: u64, address: &str, port: u16) -> ClusterNode {
        ClusterNode::builder("n1", address, port).incarnation(incarnation).build().unwrap()
    }

    #[test]
    fn a_later_life_or_the_same_elsewhere_is_another_process() {
        let local = node(7, "10.0.0.1", 7001);
        let is = |incarnation, address, port| is_rival(&node(incarnation, address, port), &local);
        assert!(is(8, "10.0.0.1", 7001) && is(7, "10.0.0.2", 7001) && is(7, "10.0.0.1", 7002));
        assert!(!is(7, "10.0.0.1", 7001) && !is(6, "10.0.0.2", 7002));
        assert!(!is(7, "::ffff:10.0.0.1", 7001), "the same address, written otherwise");
        let v6 = node(7, "FD00:0:0::2", 7001);
        assert!(!is_rival(&node(7, "fd00::2", 7001), &v6) && is_rival(&node(7, "fd00::3", 7001), &v6));
        assert!(is_rival(&node(7, "a.example", 7001), &local) && is_rival(&local, &node(7, "a.example", 7001)));
    }
}
