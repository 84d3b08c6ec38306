//! A host that sends others what they did not ask for, as a process of its own. It overhears datagrams first. A flood sends
//! these and random ones as fast as it can, over and over, and opens connections that say nothing. A replay sends what was
//! overheard again exactly as it was, and slowly enough that all of it is looked at.
#![allow(dead_code)]

use std::io::BufRead;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, eth, ipproto};

use crate::member::{tell, word};

/// The test that is the flood, and the one that is the replay; ignored unless they are asked for by their names.
pub const PROCESS: &str = "flood_process";
pub const REPLAY: &str = "replay_process";
/// Where the process finds whom it floods: addresses and ports, with commas between.
pub const TARGETS: &str = "LIVE_FLOOD";
/// How many datagrams are kept at the most that are overheard before the flood begins.
const OVERHEARD: usize = 5_000;
/// An IPv4 header of the usual length, and a datagram's.
const HEADERS: usize = 28;
/// How often a replay sends all that was overheard, and the pause after each datagram of it: members look at no more than
/// 5,000 datagrams of a host in a second, and the rest would prove nothing.
pub const REPEATED: u64 = 10;
const PAUSE: Duration = Duration::from_millis(2);
/// How many connections are held to each target, and how long one is waited for.
const CONNECTIONS: usize = 300;
const CONNECTED: Duration = Duration::from_millis(200);

/// Overhears until told to flood, and floods until told to end. Does nothing where nobody asked for one.
pub fn run() {
    let Some(targets) = targets() else { return };
    let [begins, ends] = commanded();
    let overheard: Vec<_> = overhear(&begins).iter().map(|packet| packet[HEADERS..].to_vec()).collect();
    tell(word("floods", format!("{} datagrams were overheard", overheard.len())));
    let connecting = {
        let (ends, targets) = (Arc::clone(&ends), targets.clone());
        std::thread::spawn(move || {
            let mut held = Vec::new();
            while !ends.load(Ordering::Relaxed) {
                held.truncate(CONNECTIONS * targets.len());
                for target in &targets {
                    let made = TcpStream::connect_timeout(target, CONNECTED);
                    held.splice(0..0, made.ok());
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        })
    };
    let sent = flood(&targets, &overheard, &ends);
    connecting.join().unwrap();
    tell(word("stopped", format!("{sent} datagrams were sent")));
}

/// Overhears until told that it is enough, and when told to, sends all of it again. Does nothing where nobody asked for one.
pub fn run_replay() {
    let Some(targets) = targets() else { return };
    let [enough, begins] = commanded();
    let overheard = overhear(&enough);
    tell(word("overheard", overheard.len().to_string()));
    while !begins.load(Ordering::Relaxed) {
        std::thread::sleep(PAUSE);
    }
    for _ in 0..REPEATED {
        replay(&targets, &overheard);
    }
    tell(word("replayed", String::new()));
}

/// Who is meant; nobody where nobody asked for this process.
fn targets() -> Option<Vec<SocketAddr>> {
    let targets = std::env::var(TARGETS).ok()?;
    // The test harness has begun a line of its own.
    println!();
    Some(targets.split(',').map(|target| target.parse().unwrap()).collect())
}

/// What becomes true with the first line of input, and with the second.
fn commanded() -> [Arc<AtomicBool>; 2] {
    let told = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let commanded = told.clone();
    std::thread::spawn(move || {
        let mut commands = std::io::stdin().lock().lines();
        for told in commanded {
            // A parent that is gone says nothing more.
            _ = commands.next();
            told.store(true, Ordering::Relaxed);
        }
    });
    told
}

/// Packets with datagrams that others send each other.
fn overhear(begins: &AtomicBool) -> Vec<Vec<u8>> {
    let socket = rustix::net::socket(AddressFamily::PACKET, SocketType::DGRAM, Some(eth::IP)).unwrap();
    tell(word("overhears", String::new()));
    let (mut overheard, mut room) = (Vec::new(), [0; 2048]);
    while overheard.is_empty() || !begins.load(Ordering::Relaxed) {
        let (_, length) = rustix::net::recv(&socket, &mut room[..], RecvFlags::empty()).unwrap();
        let packet = &room[..length.min(room.len())];
        if packet.len() > HEADERS && packet[0] == 0x45 && packet[9] == 17 && overheard.len() < OVERHEARD {
            overheard.push(packet.to_vec());
        }
    }
    overheard
}

/// Sends each once to whom it was for, under the address of who sent it; and what is in it to each target, under this
/// host's own address.
fn replay(targets: &[SocketAddr], overheard: &[Vec<u8>]) {
    // Its packets bring their own IPv4 header.
    let forging = rustix::net::socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW)).unwrap();
    let own = UdpSocket::bind((IpAddr::from([0, 0, 0, 0]), 0)).unwrap();
    for packet in overheard {
        let mut packet = packet.clone();
        let (to, port) = (<[u8; 4]>::try_from(&packet[16..20]).unwrap(), [packet[22], packet[23]]);
        // No checksum: what is overheard between virtual interfaces has none that is complete.
        packet[26..HEADERS].fill(0);
        let to = SocketAddr::from((to, u16::from_be_bytes(port)));
        rustix::net::sendto(&forging, &packet, SendFlags::empty(), &to).unwrap();
        for target in targets {
            own.send_to(&packet[HEADERS..], target).unwrap();
        }
        std::thread::sleep(PAUSE);
    }
}

/// How many were sent.
fn flood(targets: &[SocketAddr], overheard: &[Vec<u8>], ends: &AtomicBool) -> u64 {
    let socket = UdpSocket::bind((IpAddr::from([0, 0, 0, 0]), 0)).unwrap();
    let (mut sent, mut state) = (0u64, 0x9e37_79b9_7f4a_7c15u64);
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    while !ends.load(Ordering::Relaxed) {
        for target in targets {
            let mut bytes = overheard[random() as usize % overheard.len()].clone();
            match random() % 3 {
                // As it was.
                0 => {}
                // Cut off somewhere. With something else in it, it would be believed: nobody signs it.
                1 => bytes.truncate(1 + random() as usize % bytes.len()),
                _ => bytes = (0..random() % 1500).map(|_| random() as u8).collect(),
            }
            sent += u64::from(socket.send_to(&bytes, target).is_ok());
        }
    }
    sent
}
