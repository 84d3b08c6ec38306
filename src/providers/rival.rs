//! When whoever is shown under the local node's id is another process.
//!
//! It is one if it is registered in a later life, or in the same life at another place. One in an earlier life is what was
//! there before, and one in the same life at the same place is the local node itself. So is one at the same place where
//! either has no incarnation: 0 says nothing.

use crate::topology::ClusterNode;

/// Whether `shown`, which has the local node's id, is another process.
pub(in crate::providers) fn is_rival(shown: &ClusterNode, local: &ClusterNode) -> bool {
    let (life, ours) = (shown.incarnation(), local.incarnation());
    match is_same_place(shown, local) {
        true => life > ours && ours != 0,
        false => life >= ours,
    }
}

fn is_same_place(shown: &ClusterNode, local: &ClusterNode) -> bool {
    (shown.address(), shown.port()) == (local.address(), local.port())
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
        let unknown = node(0, "10.0.0.1", 7001);
        assert!(!is_rival(&local, &unknown) && !is_rival(&unknown, &local), "the same place, and one life is unknown");
        assert!(is_rival(&node(7, "10.0.0.2", 7001), &unknown), "elsewhere");
        assert!(is_rival(&node(7, "a.example", 7001), &local) && is_rival(&local, &node(7, "a.example", 7001)));
    }
}
