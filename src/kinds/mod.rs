//! Resource kinds. A new kind is one file and one line in [`registry`].

pub mod aws;
pub mod k8s;

use std::sync::Arc;

use crate::aws::Aws;
use crate::engine::kind::Registry;
use crate::k8s::Clusters;

/// All kinds, on these clients.
pub fn registry(clients: &Arc<Aws>, clusters: &Arc<Clusters>) -> Registry {
    let mut kinds = Registry::default();
    macro_rules! aws {
        ($($file:ident::$kind:ident),+ $(,)?) => { $(kinds.add(aws::$file::$kind::new(clients.clone()));)+ };
    }
    aws!(
        vpc::Vpc,
        subnet::Subnet,
        internet_gateway::InternetGateway,
        elastic_ip::ElasticIp,
        nat_gateway::NatGateway,
        route_table::RouteTable,
        vpc_endpoint::VpcEndpoint,
        security_group::SecurityGroup,
        flow_log::FlowLog,
        kms_key::KmsKey,
        log_group::LogGroup,
        iam_role::IamRole,
        service_linked_role::ServiceLinkedRole,
        oidc_provider::OidcProvider,
        eks_cluster::EksCluster,
        access_entry::AccessEntry,
        eks_addon::EksAddon,
        pod_identity::PodIdentity,
        launch_template::LaunchTemplate,
        fargate_profile::FargateProfile,
    );
    kinds.add(aws::node_group::NodeGroup::new(clients.clone(), clusters.clone()));
    kinds.add(k8s::manifest::Manifest::new(clients.clone(), clusters.clone()));
    kinds
}
