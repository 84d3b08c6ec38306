//! trial
mod foca;
mod samples;
mod scenarios;
use cluster_provisioning::testkit::gossip::{GossipMember, Start};
use foca::FocaMember;
fn main() {
    let ours = |s: &Start, _: usize| GossipMember::lan(s);
    for n in [10, 100, 500] {
        let t = std::time::Instant::now();
        println!("{n} ours {:?}", scenarios::full_view(ours, 1, n, 0.0));
        println!("{:?}", t.elapsed());
        let t = std::time::Instant::now();
        println!("{n} foca {:?}", scenarios::full_view(FocaMember::lan, 1, n, 0.0));
        println!("{:?}", t.elapsed());
    }
    println!("10% {:?}", scenarios::full_view(FocaMember::lan, 1, 100, 0.1));
}
