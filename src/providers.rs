//! The providers that this library brings along, each behind a feature of its name.

#[cfg(feature = "consul")]
pub(crate) mod consul;
