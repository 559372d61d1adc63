//! Resource kinds. A new kind is one file and one line in [`all`].

pub mod aws;
pub mod k8s;

use std::sync::Arc;

use self::aws::costs::Cost;
use self::aws::permission::Permission;
use self::aws::quotas::Counts;
use crate::aws::Aws;
use crate::engine::kind::{Connected, Handlers, Kind, Registry};
use crate::engine::packed::Packed;
use crate::k8s::Clusters;

/// The clients for the calls of all kinds in one scope.
pub struct Clients {
    pub aws: Arc<Aws>,
    pub clusters: Arc<Clusters>,
}

/// What a kind's file provides in addition to the engine's trait.
pub trait ResourceKind: Kind {
    /// The kind's calls, with these clients.
    fn handlers(&self, clients: &Clients) -> Arc<dyn Handlers>;

    /// The actions that read the kind.
    fn reads(&self) -> &'static [&'static str] {
        &[]
    }

    /// The actions that change the kind, including those that AWS performs with the caller's permissions.
    fn permissions(&self) -> &'static [Permission] {
        &[]
    }

    /// The quotas that the kind's resources count against.
    fn quotas(&self) -> Vec<Counts> {
        Vec::new()
    }

    /// The number of free addresses that a new resource takes in each of its subnets.
    fn addresses(&self, _state: &Packed) -> usize {
        0
    }

    /// What AWS bills for a resource with `state`.
    fn costs(&self, _state: &Packed) -> Vec<Cost> {
        Vec::new()
    }

    /// The services to which the kind passes our roles.
    fn passes_roles_to(&self) -> &'static [&'static str] {
        &[]
    }
}

pub fn all() -> Vec<Arc<dyn ResourceKind>> {
    vec![
        Arc::new(aws::vpc::Vpc),
        Arc::new(aws::subnet::Subnet),
        Arc::new(aws::internet_gateway::InternetGateway),
        Arc::new(aws::elastic_ip::ElasticIp),
        Arc::new(aws::nat_gateway::NatGateway),
        Arc::new(aws::route_table::RouteTable),
        Arc::new(aws::vpc_endpoint::VpcEndpoint),
        Arc::new(aws::security_group::SecurityGroup),
        Arc::new(aws::flow_log::FlowLog),
        Arc::new(aws::kms_key::KmsKey),
        Arc::new(aws::log_group::LogGroup),
        Arc::new(aws::iam_role::IamRole),
        Arc::new(aws::service_linked_role::ServiceLinkedRole),
        Arc::new(aws::oidc_provider::OidcProvider),
        Arc::new(aws::eks_cluster::EksCluster),
        Arc::new(aws::access_entry::AccessEntry),
        Arc::new(aws::eks_addon::EksAddon),
        Arc::new(aws::pod_identity::PodIdentity),
        Arc::new(aws::launch_template::LaunchTemplate),
        Arc::new(aws::fargate_profile::FargateProfile),
        Arc::new(aws::node_group::NodeGroup),
        Arc::new(k8s::manifest::Manifest),
    ]
}

/// All kinds without clients. That is enough to plan.
pub fn facts() -> Registry {
    let mut kinds = Registry::default();
    all().into_iter().for_each(|kind| kinds.add(kind));
    kinds
}

/// All kinds with their calls, for the scope of these clients.
pub fn registry(aws: &Arc<Aws>, clusters: &Arc<Clusters>) -> Connected {
    let clients = Clients { aws: aws.clone(), clusters: clusters.clone() };
    let mut kinds = Connected::default();
    for kind in all() {
        let handlers = kind.handlers(&clients);
        kinds.add(&clients.aws.scope, kind, handlers);
    }
    kinds
}
