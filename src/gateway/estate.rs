//! The tenants that the gateway serves, as the spec gives them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::who::{Access, Identity};
use crate::guard::{Guard, Rights, User};

/// All tenants, by id.
#[derive(Debug, Default)]
pub struct Estate {
    pub tenants: BTreeMap<String, Arc<Tenant>>,
}

#[derive(Debug)]
pub struct Tenant {
    pub id: String,
    /// The name of the cluster in the gateway's configuration.
    pub cluster: String,
    pub namespace: String,
    /// The Namespace object, whose annotations the policies read.
    pub namespace_object: Value,
    /// Whom the gateway impersonates for the tenant's people.
    pub user: User,
    pub rights: Rights,
    pub guard: Arc<Guard>,
    pub access: Vec<Access>,
    /// Whether EKS adds fields to the tenant's Pods.
    pub fargate: bool,
}

impl Estate {
    /// The tenant, if the identity is one of its own. None looks the same for a tenant that doesn't exist.
    pub fn tenant(&self, id: &str, identity: &Identity) -> Option<&Arc<Tenant>> {
        self.tenants.get(id).filter(|tenant| tenant.access.iter().any(|access| access.matches(identity)))
    }
}
