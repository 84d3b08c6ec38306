//! A host that floods others, as a process of its own: it overhears datagrams, and sends these and random ones as fast as
//! it can, over and over, and opens connections that say nothing.
#![allow(dead_code)]

use std::io::BufRead;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, SocketType, eth};

use crate::member::{tell, word};

/// The test that is the flood; ignored unless it is asked for by its name.
pub const PROCESS: &str = "flood_process";
/// Where the process finds whom it floods: addresses and ports, with commas between.
pub const TARGETS: &str = "LIVE_FLOOD";
/// How many datagrams are kept at the most that are overheard before the flood begins.
const OVERHEARD: usize = 5_000;
/// How many connections are held to each target, and how long one is waited for.
const CONNECTIONS: usize = 300;
const CONNECTED: Duration = Duration::from_millis(200);

/// Overhears until told to flood, and floods until told to end. Does nothing where nobody asked for one.
pub fn run() {
    let Ok(targets) = std::env::var(TARGETS) else { return };
    let targets: Vec<SocketAddr> = targets.split(',').map(|target| target.parse().unwrap()).collect();
    println!();
    let [begins, ends] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let commanded = [Arc::clone(&begins), Arc::clone(&ends)];
    std::thread::spawn(move || {
        let mut commands = std::io::stdin().lock().lines();
        for told in commanded {
            // A parent that is gone says nothing more.
            _ = commands.next();
            told.store(true, Ordering::Relaxed);
        }
    });
    let overheard = overhear(&begins);
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

/// Datagrams that others send each other.
fn overhear(begins: &AtomicBool) -> Vec<Vec<u8>> {
    let socket = rustix::net::socket(AddressFamily::PACKET, SocketType::DGRAM, Some(eth::IP)).unwrap();
    tell(word("overhears", String::new()));
    let (mut overheard, mut room) = (Vec::new(), [0; 2048]);
    while overheard.is_empty() || !begins.load(Ordering::Relaxed) {
        let (_, length) = rustix::net::recv(&socket, &mut room[..], RecvFlags::empty()).unwrap();
        let packet = &room[..length.min(room.len())];
        // An IPv4 header of the usual length, and a datagram's.
        if packet.len() > 28 && packet[0] == 0x45 && packet[9] == 17 && overheard.len() < OVERHEARD {
            overheard.push(packet[28..].to_vec());
        }
    }
    overheard
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
