//! What the service counts and measures.

mod histogram;

pub use histogram::Histogram;
