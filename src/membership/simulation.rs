//! Whole clusters of the real member on one clock and one seed: a network that loses, delays, doubles and cuts, and nodes
//! that stand still, die and come back.

mod network;
mod world;

mod faults;
mod figures;
mod scenes;
