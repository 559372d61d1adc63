//! Kubernetes objects, applied with server-side apply.
//!
//! Objects with the label `ringfence.dev/tenancy` are ours. An annotation has the address, because label values can't
//! contain slashes. Objects are read in bulk, with one list for each kind that a cluster serves, so that objects that
//! have left the templates are found. Only objects that may differ need a dry run.

mod facts;
mod find;
mod handlers;
mod object;
mod observe;
mod requests;
mod served;
mod webhooks;
mod write;

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, StreamExt, TryStreamExt};

use crate::engine::error::Result;
use crate::engine::kind::{Change, Found, Handle, Handlers, Made, New, Observation, Round, Wanted};
use crate::kinds::{Clients, ResourceKind};
use observe::PARALLEL;

pub use facts::{Manifest, NAME, State};
pub use handlers::ManifestHandlers;
pub use object::{own, summary};

impl ResourceKind for Manifest {
    fn handlers(&self, clients: &Clients) -> Arc<dyn Handlers> {
        Arc::new(ManifestHandlers::new(clients.aws.clone(), clients.clusters.clone()))
    }
}

#[async_trait]
impl Handlers for ManifestHandlers {
    async fn observe(&self, _round: &Round, wanted: &[Wanted]) -> Result<Observation> {
        self.read(wanted).await
    }

    async fn find(&self, handles: &[Handle]) -> Result<Vec<Option<Found>>> {
        let reads: Vec<_> = handles.iter().map(|h| self.find_one(h)).collect();
        stream::iter(reads).buffered(PARALLEL).try_collect().await
    }

    async fn create(&self, new: &New) -> Result<Made> {
        self.write(new, true).await
    }

    async fn update(&self, from: &Found, to: &New, _changes: &[Change]) -> Result<Made> {
        let to = New { generation: from.generation, ..to.clone() };
        self.write(&to, false).await
    }

    async fn delete(&self, found: &Found) -> Result<bool> {
        self.remove(found).await
    }
}
