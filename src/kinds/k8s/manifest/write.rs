//! Writing and deleting objects.

use serde_json::{Value, json};

use super::facts::State;
use super::handlers::ManifestHandlers;
use super::object::{deleting, id, is_given, namespace_name, summary, text};
use super::requests::{self, get};
use super::served::{at, locate, served, unserved};
use crate::engine::error::{Class, Error, Result};
use crate::engine::kind::{Found, Made, New};
use crate::engine::value::Outputs;
use crate::k8s::{Apis, Cluster, apply};

impl ManifestHandlers {
    /// Applies a wanted object without dry run.
    pub(super) async fn write(&self, new: &New, first: bool) -> Result<Made> {
        let state: State = new.state.typed()?;
        let cluster = self.clusters.get(state.target()).await?;
        self.write_to(&cluster, &state, new, first).await
    }

    /// The check before the first write to a cluster. If an object's API doesn't exist and the template doesn't declare
    /// it as required, the template has a mistake.
    async fn check(&self, cluster: &Cluster) -> Result<()> {
        let wanted = self.unchecked().get(cluster.name()).cloned().unwrap_or_default();
        for fresh in [false, true] {
            let apis = cluster.apis(fresh).await?;
            let wrong = wanted.values().find_map(|(address, s)| Some(at(address, locate(&apis, s).err()?)));
            match wrong {
                None => break,
                Some(error) if fresh => return Err(error),
                Some(_) => {}
            }
        }
        self.unchecked().remove(cluster.name());
        Ok(())
    }

    async fn write_to(&self, cluster: &Cluster, state: &State, new: &New, first: bool) -> Result<Made> {
        self.check(cluster).await?;
        let mut apis = cluster.apis(false).await?;
        if !matches!(locate(&apis, state), Ok(Some(_))) {
            apis = cluster.apis(true).await?;
        }
        let api = locate(&apis, state)?.ok_or_else(|| unserved(state))?;
        if first && let Some(live) = get(cluster, api, &state.object).await? {
            if deleting(&live) {
                let what = summary(&live);
                return Err(Error::new(
                    Class::NotYet,
                    format!("{what} in cluster {} is still being deleted", cluster.name()),
                ));
            }
            if !self.is_ours(&live) && !self.is_ours_by_descent(cluster, &apis, &live).await? {
                return Err(Error::new(Class::Exists, self.foreign(cluster, api, &new.address, &live).message));
            }
        }
        let sent = self.trusting(cluster, self.sent(&new.address, new.generation, &state.object)).await?;
        if first {
            self.answers(cluster, &sent).await?;
        }
        let mut made = match requests::apply(cluster, api, &sent, false).await {
            // The object may be invalid only together with fields that others have added.
            Err(e) if e.class == Class::Invalid && !first => {
                let live = get(cluster, api, &state.object).await?;
                let Some(cleared) = live.as_ref().and_then(apply::without_additions) else { return Err(e) };
                requests::replace(cluster, api, &apply::overlaid(&cleared, &sent)).await?;
                requests::apply(cluster, api, &sent, false).await?
            }
            other => other?,
        };
        if let Some(cleared) = apply::without_additions(&made) {
            made = requests::replace(cluster, api, &cleared).await?;
        }
        if let Some(name) = namespace_name(&made) {
            self.namespaces().insert((cluster.name().to_owned(), name.to_owned()));
        }
        Ok(Made { id: id(cluster.name(), &made), outputs: Outputs::new(), ready: true })
    }

    async fn is_ours_by_descent(&self, cluster: &Cluster, apis: &Apis, live: &Value) -> Result<bool> {
        let home = text(live, "/metadata/namespace").unwrap_or_default();
        let Some(api) = apis.find("v1", "Namespace").filter(|_| is_given(live, |_| true)) else { return Ok(false) };
        if self.namespaces().contains(&(cluster.name().to_owned(), home.to_owned())) {
            return Ok(true);
        }
        let namespace = get(cluster, api, &json!({"metadata": {"name": home}})).await?;
        Ok(namespace.is_some_and(|n| self.is_ours(&n)))
    }

    /// Deletes an object of ours. Returns true if it doesn't exist any more.
    pub(super) async fn remove(&self, found: &Found) -> Result<bool> {
        let state: State = found.state.typed()?;
        let cluster = self.clusters.get(state.target()).await?;
        let apis = cluster.apis(false).await?;
        let Some(api) = served(&apis, &state.object) else { return Ok(true) };
        let Some(live) = get(&cluster, api, &state.object).await? else { return Ok(true) };
        if !self.is_ours(&live) {
            return Err(Error::new(
                Class::Invalid,
                format!(
                    "{} in cluster {} no longer has our label, so ringfence doesn't delete it",
                    summary(&live),
                    cluster.name()
                ),
            ));
        }
        requests::delete(&cluster, api, &live).await
    }
}
