//! IAM roles.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::builder::{Builder, Terms};
use super::site::Site;
use crate::engine::address::Address;
use crate::engine::error::Result;
use crate::kinds::aws::{iam_role, service_linked_role};

/// Service-linked roles. ringfence makes missing ones. Otherwise their first use would make them, which fails if that
/// caller has no permission to.
#[derive(Clone, Copy)]
pub(super) enum ServiceLinked {
    Eks,
    NodeGroup,
    Fargate,
    Autoscaling,
}

impl ServiceLinked {
    fn parts(self) -> (&'static str, &'static str) {
        match self {
            Self::Eks => ("eks", "eks.amazonaws.com"),
            Self::NodeGroup => ("eks-nodegroup", "eks-nodegroup.amazonaws.com"),
            Self::Fargate => ("eks-fargate", "eks-fargate.amazonaws.com"),
            Self::Autoscaling => ("autoscaling", "autoscaling.amazonaws.com"),
        }
    }
}

/// The permissions of a role.
pub(super) struct Grants {
    /// ARNs of managed policies.
    pub attached: Vec<String>,
    pub inline: BTreeMap<String, Value>,
}

impl Grants {
    pub fn none() -> Self {
        Self { attached: Vec::new(), inline: BTreeMap::new() }
    }

    pub fn attached(attached: Vec<String>) -> Self {
        Self { attached, ..Self::none() }
    }

    pub fn and(mut self, name: &str, document: Value) -> Self {
        self.inline.insert(name.to_owned(), document);
        self
    }
}

impl Builder<'_> {
    pub(super) fn role(&mut self, address: Address, name: String, trust: Value, grants: Grants) -> Result<()> {
        let Grants { mut attached, inline } = grants;
        attached.sort();
        attached.dedup();
        let state = iam_role::State {
            path: self.spec.iam.path.clone(),
            trust,
            attached,
            inline,
            boundary: self.spec.iam.permissions_boundary.clone(),
            tags: self.tags(&address, &name),
            name,
        };
        self.put(address, iam_role::NAME, &state, Terms::default())
    }

    /// The address of a service-linked role. The first call for a role adds it.
    pub(super) fn service_linked(&mut self, role: ServiceLinked) -> Result<Address> {
        let (name, service) = role.parts();
        let address = Address::new(format!("tenancy/service-linked-role/{name}"));
        if !self.desired.contains(&address) {
            let state = service_linked_role::State { service: service.to_owned() };
            self.put(address.clone(), service_linked_role::NAME, &state, Terms::default())?;
        }
        Ok(address)
    }

    /// A trust policy for one service account of one cluster, by Pod Identity.
    pub(super) fn pod_identity_trust(
        &self,
        site: &Site<'_>,
        role: &Address,
        namespace: &str,
        service_account: &str,
    ) -> Result<Value> {
        let values = json!({
            "clusterArn": self.arn("eks", format!("cluster/{}", site.name)),
            "namespace": namespace,
            "serviceAccount": service_account,
        });
        self.document("iam/pod-identity-trust.json", role, values)
    }
}
