use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_iam::types::{Role, RoleDetail};
use serde::{Deserialize, Serialize};

use super::iam_role::roles;
use super::quotas::{Counted, Counts, Per};
use crate::aws::Aws;
use crate::aws::error::failed;
use crate::engine::address::Address;
use crate::engine::error::{Class, Result};
use crate::engine::kind::{
    Change, Found, Handle, Handlers, Kind, Made, New, Observation, Round, Rule, Scope, Status, Wanted,
};
use crate::engine::packed::Packed;
use crate::engine::value::Outputs;
use crate::kinds::{Clients, ResourceKind};

pub const NAME: &str = "aws.service-linked-role";

/// A service-linked role. It is created if it is missing, and never changed or deleted. It can't have tags at its
/// creation, so its path and name identify it. Outputs: `name`, `arn`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Such as `eks-nodegroup.amazonaws.com`.
    pub service: String,
}

pub struct ServiceLinkedRole;

pub struct ServiceLinkedRoleHandlers {
    aws: Arc<Aws>,
}

impl ServiceLinkedRoleHandlers {
    pub fn new(aws: Arc<Aws>) -> Self {
        Self { aws }
    }

    fn found(&self, address: &Address, state: &State, name: &str, arn: &str) -> Result<Found> {
        Ok(Found {
            address: address.clone(),
            generation: 1,
            id: name.to_owned(),
            outputs: outputs(name, arn),
            state: Packed::of(state)?,
            status: Status::Ready,
            refs: Vec::new(),
        })
    }

    async fn by_path(&self, address: &Address, state: &State) -> Result<Option<Found>> {
        let answer = self
            .aws
            .iam
            .list_roles()
            .path_prefix(path(&state.service))
            .send()
            .await
            .map_err(failed("iam:ListRoles"))?;
        let exact = |r: &&Role| is_role(&state.service, r.role_name());
        answer.roles().iter().find(exact).map(|r| self.found(address, state, r.role_name(), r.arn())).transpose()
    }
}

impl Kind for ServiceLinkedRole {
    fn name(&self) -> &'static str {
        NAME
    }

    fn belongs_to_account(&self) -> bool {
        true
    }

    fn rules(&self) -> &'static [(&'static str, Rule)] {
        &[("service", Rule::Replace)]
    }

    fn predict(&self, new: &New, scope: &Scope) -> Outputs {
        let Ok(State { service }) = new.state.typed() else {
            return Outputs::new();
        };
        let Some(name) = role_name(&service) else {
            return Outputs::new();
        };
        outputs(name, &format!("arn:{}:iam::{}:role{}{name}", scope.partition, scope.account, path(&service)))
    }

    fn summary(&self, state: &Packed) -> String {
        state.typed::<State>().map(|s| s.service).unwrap_or_default()
    }

    fn finds_one_by_one(&self) -> bool {
        true
    }
}

impl ResourceKind for ServiceLinkedRole {
    fn handlers(&self, clients: &Clients) -> Arc<dyn Handlers> {
        Arc::new(ServiceLinkedRoleHandlers::new(clients.aws.clone()))
    }

    fn quotas(&self) -> Vec<Counts> {
        vec![Counts::all("iam", "L-FE177D64", Per::Account(Counted::Roles))]
    }

    fn reads(&self) -> &'static [&'static str] {
        &["iam:ListRoles"]
    }
}

#[async_trait]
impl Handlers for ServiceLinkedRoleHandlers {
    async fn observe(&self, round: &Round, wanted: &[Wanted]) -> Result<Observation> {
        let all = roles(&self.aws, round).await?;
        let mut seen = Observation::default();
        for Wanted { address, state } in wanted {
            let state: State = state.typed()?;
            let its = |r: &&RoleDetail| {
                r.path() == Some(&path(&state.service)) && is_role(&state.service, r.role_name().unwrap_or_default())
            };
            if let Some(role) = all.iter().find(its) {
                let (name, arn) = (role.role_name().unwrap_or_default(), role.arn().unwrap_or_default());
                seen.found.push(self.found(address, &state, name, arn)?);
            }
        }
        Ok(seen)
    }

    async fn find(&self, handles: &[Handle]) -> Result<Vec<Option<Found>>> {
        let mut found = Vec::new();
        for handle in handles {
            found.push(self.by_path(&handle.address, &handle.state.typed()?).await?);
        }
        Ok(found)
    }

    async fn create(&self, new: &New) -> Result<Made> {
        let state: State = new.state.typed()?;
        let answer = self
            .aws
            .iam
            .create_service_linked_role()
            .aws_service_name(&state.service)
            .send()
            .await
            .map_err(failed("iam:CreateServiceLinkedRole"));
        match answer {
            Ok(answer) => {
                let (name, arn) = answer
                    .role()
                    .map_or((String::new(), String::new()), |r| (r.role_name().to_owned(), r.arn().to_owned()));
                Ok(Made { outputs: outputs(&name, &arn), id: name, ready: true })
            }
            // The role was created in between, by AWS itself or by an attempt whose answer was lost.
            Err(error) if error.class == Class::Exists || error.message.contains("has been taken") => {
                let found = self.by_path(&new.address, &state).await?.ok_or(error)?;
                Ok(Made { id: found.id, outputs: found.outputs, ready: true })
            }
            Err(error) => Err(error),
        }
    }

    async fn update(&self, from: &Found, _to: &New, _changes: &[Change]) -> Result<Made> {
        Ok(Made { id: from.id.clone(), outputs: from.outputs.clone(), ready: true })
    }

    /// Never deleted, because other clusters of the account need the role.
    async fn delete(&self, _found: &Found) -> Result<bool> {
        Ok(true)
    }
}

/// AWS fixes the name of each service's role. These are the names of the roles that ringfence needs (EKS and Auto
/// Scaling user guides, "service-linked roles").
fn role_name(service: &str) -> Option<&'static str> {
    match service {
        "eks.amazonaws.com" => Some("AWSServiceRoleForAmazonEKS"),
        "eks-nodegroup.amazonaws.com" => Some("AWSServiceRoleForAmazonEKSNodegroup"),
        "eks-fargate.amazonaws.com" => Some("AWSServiceRoleForAmazonEKSForFargate"),
        "autoscaling.amazonaws.com" => Some("AWSServiceRoleForAutoScaling"),
        _ => None,
    }
}

/// A service may have further roles with the same path and a suffix (Auto Scaling User Guide, "Service-linked
/// roles"). They are used only by resources that name them. Key policies name the role without suffix.
fn is_role(service: &str, name: &str) -> bool {
    role_name(service).is_none_or(|own| own == name)
}

fn path(service: &str) -> String {
    format!("/aws-service-role/{service}/")
}

fn outputs(name: &str, arn: &str) -> Outputs {
    Outputs::from([("name".to_owned(), name.to_owned()), ("arn".to_owned(), arn.to_owned())])
}
