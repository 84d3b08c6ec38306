//! The Kubernetes provider with a kubeconfig, against a real API server.
#![cfg(all(feature = "kubeconfig", unix))]

#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/kubernetes.rs"]
mod kubernetes;
#[path = "support/pods.rs"]
mod pods;
