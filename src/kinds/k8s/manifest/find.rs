//! Reading one object.

use serde_json::Value;

use super::facts::State;
use super::handlers::ManifestHandlers;
use super::object::{deleting, generation, id};
use super::requests::get;
use super::served::served;
use crate::engine::address::Address;
use crate::engine::error::{Result, typed};
use crate::engine::kind::{Found, Handle, Status};
use crate::engine::value::Outputs;
use crate::k8s::apply;

impl ManifestHandlers {
    pub(super) async fn find_one(&self, handle: &Handle) -> Result<Option<Found>> {
        let state: State = typed(&handle.state)?;
        let cluster = self.clusters.get(state.target()).await?;
        let apis = cluster.apis(false).await?;
        let Some(api) = served(&apis, &state.object) else { return Ok(None) };
        let Some(live) = get(&cluster, api, &state.object).await?.filter(|o| self.is_ours(o)) else { return Ok(None) };
        let desired = self.sent(&handle.address, generation(&live), &state.object);
        // Without a dry run, because this is polled.
        let object = if deleting(&live) || apply::is_settled(&desired, &live) {
            state.object.clone()
        } else {
            let live = apply::normalised(&live);
            apply::projected(&state.object, &live, &apply::overlaid(&live, &desired))
        };
        found(handle.address.clone(), &live, State { object, ..state }).map(Some)
    }
}

pub(super) fn found(address: Address, live: &Value, state: State) -> Result<Found> {
    Ok(Found {
        address,
        generation: generation(live),
        id: id(&state.cluster, live),
        outputs: Outputs::new(),
        state: state.into_value()?,
        status: if deleting(live) { Status::Deleting } else { Status::Ready },
        refs: Vec::new(),
    })
}
