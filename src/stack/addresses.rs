//! Addresses that several parts of the stack use.

use crate::engine::address::Address;
use crate::spec::{Isolation, Owner, Tenant};

/// The addresses of all VPCs, for filling [`Facts::vpcs`](super::Facts::vpcs).
pub fn vpc(owner: Owner<'_>) -> Address {
    prefix(owner).join("vpc")
}

/// `tenant/<id>/silo` or `pool/<name>`.
pub fn prefix(owner: Owner<'_>) -> Address {
    match owner {
        Owner::Tenant(id) => Address::new(format!("tenant/{id}/silo")),
        Owner::Pool(name) => Address::new(format!("pool/{name}")),
    }
}

/// The address of a tenant's placement. It holds the isolation model and the pool, so that both placements can exist
/// during a move.
pub(super) fn home(tenant: &Tenant) -> Address {
    let id = &tenant.id;
    match &tenant.isolation {
        Isolation::Silo => Address::new(format!("tenant/{id}/silo")),
        Isolation::Pool { pool } => Address::new(format!("tenant/{id}/pool/{pool}")),
        Isolation::Fargate { pool } => Address::new(format!("tenant/{id}/fargate/{pool}")),
    }
}

/// The role of a tenant's service account.
pub(super) fn workload_role(home: &Address, service_account: &str) -> Address {
    home.join(format!("role/sa-{service_account}"))
}
