//! The Kubernetes objects of the clusters.

use super::state::State;
use super::wire::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct K8s {}

/// Answers below `/k8s/<account>/<region>/<cluster>/`.
pub fn handle(_state: &mut State, _now: f64, _req: HttpRequest) -> HttpResponse {
    HttpResponse { status: 404, ..HttpResponse::default() }
}
