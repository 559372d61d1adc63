//! Reading one object.

use serde_json::Value;

use super::facts::State;
use super::handlers::ManifestHandlers;
use super::object::{deleting, generation, id};
use super::requests::get;
use super::served::served;
use crate::engine::address::Address;
use crate::engine::error::Result;
use crate::engine::kind::{Found, Handle, Status};
use crate::engine::packed::Packed;
use crate::engine::value::Outputs;
use crate::k8s::apply;

impl ManifestHandlers {
    pub(super) async fn find_one(&self, handle: &Handle) -> Result<Option<Found>> {
        let state: State = handle.state.typed()?;
        let cluster = self.clusters.get(state.target()).await?;
        let apis = cluster.apis(false).await?;
        let Some(api) = served(&apis, &state.object) else { return Ok(None) };
        let Some(live) = get(&cluster, api, &state.object).await?.filter(|o| self.is_ours(o)) else { return Ok(None) };
        let desired = self.trusting(&cluster, self.sent(&handle.address, generation(&live), &state.object)).await?;
        // Without a dry run, because this is polled.
        let now = if deleting(&live) || apply::is_settled(&desired, &live) {
            handle.state.clone()
        } else {
            let live = apply::normalised(&live);
            let object = apply::projected(&state.object, &live, &apply::overlaid(&live, &desired));
            let object = Self::distrusting(object, &desired, &live);
            handle.state.edited(|state| state["object"] = object)
        };
        Ok(Some(found(handle.address.clone(), &live, &state.cluster, now)))
    }
}

pub(super) fn found(address: Address, live: &Value, cluster: &str, state: Packed) -> Found {
    Found {
        address,
        generation: generation(live),
        id: id(cluster, live),
        outputs: Outputs::new(),
        state,
        status: if deleting(live) { Status::Deleting } else { Status::Ready },
        refs: Vec::new(),
    }
}
