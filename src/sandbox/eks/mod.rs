//! Eks.

use super::state::State;
use super::wire::{Reply, Request};
use serde::{Deserialize, Serialize};

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Eks {}

pub fn call(_state: &mut State, req: &Request) -> Reply {
    Err(req.unknown_operation())
}

/// Method, path with labels named after the model input members, operation.
pub const ROUTES: &[(&str, &str, &str)] = &[];

/// Brings clusters, node groups … of a region up to `now`; the core calls it before every call to any service there.
pub fn settle(_state: &mut State, _account: &str, _region: &str, _now: f64) {}
