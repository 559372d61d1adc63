//! Clusters and the resources in them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_eks::types::{
    AccessScope, AccessScopeType, LogSetup, LogType, Logging, NodegroupScalingConfig, ResolveConflicts,
    UpdateLabelsPayload, UpdateStatus, UpdateTaintsPayload, VpcConfigRequest,
};
use ringfence::aws::Aws;
use ringfence::engine::address::Address;
use ringfence::engine::error::Class;
use ringfence::engine::kind::{Found, Handle, New, Repair, Round, Status, Wanted};
use ringfence::engine::packed::Packed;
use ringfence::kinds::aws::access_entry::{self, AccessEntry, AccessPolicy, entry_address};
use ringfence::kinds::aws::eks_addon::{self, EksAddon};
use ringfence::kinds::aws::eks_cluster::{self, EksCluster};
use ringfence::kinds::aws::fargate_profile::{self, FargateProfile, Selector};
use ringfence::kinds::aws::iam_role::{self, IamRole};
use ringfence::kinds::aws::kms_key::KmsKey;
use ringfence::kinds::aws::launch_template::{self, LaunchTemplate};
use ringfence::kinds::aws::log_group::{self, LogGroup};
use ringfence::kinds::aws::node_group::{self, NodeGroup, Taint};
use ringfence::kinds::aws::pod_identity::{self, PodIdentity, association_address};
use ringfence::kinds::aws::security_group::{self, Permission, SecurityGroup};
use ringfence::kinds::aws::subnet::{self, Subnet};
use ringfence::kinds::aws::versions;
use ringfence::kinds::aws::vpc::{self, Vpc};
use ringfence::version::compare;
use serde::Serialize;
use serde_json::json;

use super::iam::{is_foreign, key_state, managed, retagged, role_state, trust};
use super::{Contract, Ground, Lack, Subject, contracts, new, on};

const PROFILE_TAGS: &str = "aws.fargate-profile: tags changed";

pub const LACKS: &[Lack] = &[
    Lack {
        name: eks_cluster::NAME,
        reason: "a cluster's authentication mode, upgrade policy and deletion protection are lost",
        contract: |ground| Box::pin(eks_cluster(ground)),
        fails: "authentication_mode",
    },
    Lack {
        name: access_entry::NAME,
        reason: "there are no access entries",
        contract: |ground| Box::pin(access_entry(ground)),
        fails: "the answer isn't AWS's",
    },
    Lack {
        name: eks_addon::NAME,
        reason: "there are no add-ons",
        contract: |ground| Box::pin(eks_addon(ground)),
        fails: "the answer isn't AWS's",
    },
    Lack {
        name: pod_identity::NAME,
        reason: "there are no Pod Identity associations",
        contract: |ground| Box::pin(pod_identity(ground)),
        fails: "the answer isn't AWS's",
    },
    Lack {
        name: node_group::NAME,
        reason: "a node group's update settings are lost, and most of its updates with them",
        contract: |ground| Box::pin(node_group(ground)),
        fails: "max_unavailable",
    },
    Lack {
        name: PROFILE_TAGS,
        reason: "TagResource reaches clusters and node groups only",
        contract: |ground| Box::pin(fargate_profile(ground)),
        fails: "eks:TagResource",
    },
];

contracts! {
    sandbox: [
        eks_cluster, cluster_life, cluster_key, cluster_busy, cluster_upgrade, cluster_protected, access_entry, entries_by_hand,
        stale_entries, eks_addon, addon_degraded, pod_identity, associations_by_hand, node_group, node_group_failed,
        group_life, group_follows_cluster, fargate_profile, profiles_one_at_a_time, logs_of_clusters, foreign_names,
        offers,
    ],
    moto: [cluster_life, group_life, fargate_profile],
}

fn at(name: &str) -> String {
    format!("tenant/1/silo/{name}")
}

fn wanted(address: &str, state: &impl Serialize) -> Wanted {
    Wanted { address: Address::new(address), state: Packed::of(state).unwrap() }
}

/// The resources that a cluster needs.
struct Site<'a> {
    ground: &'a Ground,
    vpc: String,
    /// Three subnets in two zones.
    subnets: Vec<String>,
    groups: Vec<String>,
    role: String,
}

impl<'a> Site<'a> {
    async fn new(ground: &'a Ground) -> Self {
        let aws = &ground.aws;
        let vpc = vpc::State {
            cidr: "10.64.0.0/16".to_owned(),
            secondary_cidrs: vec![],
            dns_support: true,
            dns_hostnames: true,
            default_group_ingress: vec![],
            default_group_egress: vec![],
            main_routes: vec![],
            main_others: None,
            tags: ground.tags(&at("vpc")),
        };
        let vpc = ground.make(&on(Vpc, aws), &at("vpc"), &vpc).await.id;
        let mut subnets = Vec::new();
        for (number, zone) in ["us-east-1a", "us-east-1b", "us-east-1b"].into_iter().enumerate() {
            let address = at(&format!("subnet-{number}"));
            let state = subnet::State {
                vpc: vpc.clone(),
                cidr: format!("10.64.{number}.0/24"),
                zone: zone.to_owned(),
                public_ip_on_launch: false,
                walled: None,
                tags: ground.tags(&address),
            };
            subnets.push(ground.make(&on(Subnet, aws), &address, &state).await.id);
        }
        subnets[..2].sort();
        let mut groups = Vec::new();
        for name in ["control-plane", "more", "nodes"] {
            let everywhere = Permission {
                protocol: "-1".to_owned(),
                from: 0,
                to: 0,
                peer: "0.0.0.0/0".to_owned(),
                description: String::new(),
            };
            let state = security_group::State {
                vpc: vpc.clone(),
                name: format!("{}-{name}", aws.tenancy),
                description: name.to_owned(),
                ingress: vec![],
                egress: vec![everywhere],
                load_balancers: None,
                controller_tags: None,
                tags: ground.tags(&at(name)),
            };
            groups.push(ground.make(&on(SecurityGroup, aws), &at(name), &state).await.id);
        }
        let mut site = Self { ground, vpc, subnets, groups, role: String::new() };
        site.role = site.role("cluster", "eks.amazonaws.com", &["AmazonEKSClusterPolicy"]).await;
        site
    }

    /// Makes a role and returns its ARN.
    async fn role(&self, name: &str, service: &str, policies: &[&str]) -> String {
        let name = format!("role-{name}");
        let state = iam_role::State {
            trust: trust(service),
            attached: policies.iter().map(|p| managed(p)).collect(),
            inline: BTreeMap::new(),
            ..role_state(self.ground, &name)
        };
        let role = self.ground.make(&on(IamRole, &self.ground.aws), &at(&name), &state).await;
        role.outputs["arn"].clone()
    }

    fn state(&self) -> eks_cluster::State {
        eks_cluster::State {
            name: format!("{}-t-1", self.ground.aws.tenancy),
            role: self.role.clone(),
            version: "1.35".to_owned(),
            subnets: self.subnets[..2].to_vec(),
            security_groups: self.groups[..1].to_vec(),
            endpoint_public: false,
            endpoint_private: true,
            public_cidrs: vec![],
            service_cidr: "172.20.0.0/16".to_owned(),
            log_types: ["api", "audit", "authenticator", "controllerManager", "scheduler"].map(str::to_owned).to_vec(),
            key: None,
            authentication_mode: "API".to_owned(),
            support_type: "STANDARD".to_owned(),
            deletion_protection: false,
            tags: self.ground.tags(&at("cluster")),
        }
    }

    async fn cluster(&self) -> Found {
        self.ground.make(&on(EksCluster, &self.ground.aws), &at("cluster"), &self.state()).await
    }

    /// A cluster whose nodes can join, and their role.
    async fn with_nodes(&self) -> (Found, String) {
        let cluster = self.cluster().await;
        let policies = ["AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly", "AmazonEKS_CNI_Policy"];
        let role = self.role("nodes", "ec2.amazonaws.com", &policies).await;
        if self.ground.has(eks_addon::NAME) {
            let cni = addon_state(self.ground, &cluster, "vpc-cni");
            self.ground.make(&on(EksAddon, &self.ground.aws), &at("vpc-cni"), &cni).await;
        }
        (cluster, role)
    }
}

async fn eks_cluster(ground: &Ground) {
    let kind = on(EksCluster, &ground.aws);
    let site = Site::new(ground).await;
    let state = site.state();
    let with = |change: fn(&mut eks_cluster::State)| {
        let mut state = state.clone();
        change(&mut state);
        state
    };
    Contract::new(ground, &kind, &at("cluster"), &state)
        .update("version", &with(|s| s.version = "1.36".to_owned()))
        .update(
            "log_types",
            &with(|s| {
                s.version = "1.36".to_owned();
                s.log_types.truncate(2);
            }),
        )
        .update(
            "endpoint_public",
            &with(|s| {
                s.version = "1.36".to_owned();
                s.endpoint_public = true;
                s.public_cidrs = vec!["203.0.113.0/24".to_owned(), "198.51.100.7/32".to_owned()];
            }),
        )
        .update(
            "public_cidrs",
            &with(|s| {
                s.version = "1.36".to_owned();
                s.endpoint_public = true;
                s.public_cidrs = vec!["203.0.113.0/24".to_owned()];
            }),
        )
        .update("endpoint_public", &with(|s| s.version = "1.36".to_owned()))
        .update(
            "subnets",
            &eks_cluster::State {
                version: "1.36".to_owned(),
                subnets: site.subnets.iter().rev().cloned().collect(),
                ..state.clone()
            },
        )
        .update(
            "security_groups",
            &eks_cluster::State {
                version: "1.36".to_owned(),
                security_groups: site.groups[..2].to_vec(),
                ..state.clone()
            },
        )
        .update(
            "support_type",
            &with(|s| {
                s.version = "1.36".to_owned();
                s.support_type = "EXTENDED".to_owned();
            }),
        )
        .update(
            "deletion_protection",
            &with(|s| {
                s.version = "1.36".to_owned();
                s.deletion_protection = true;
            }),
        )
        .update("deletion_protection", &with(|s| s.version = "1.36".to_owned()))
        .drift("log_types", |aws, found| async move {
            let off = LogSetup::builder().types(LogType::Audit).enabled(false).build();
            let call = aws.eks.update_cluster_config().name(&found.id);
            let call = call.logging(Logging::builder().cluster_logging(off).build());
            done(&aws, &found.id, call.send().await.unwrap().update().unwrap().id().unwrap()).await;
        })
        .drift("endpoint_public", |aws, found| async move {
            let open = VpcConfigRequest::builder().endpoint_public_access(true).build();
            let call = aws.eks.update_cluster_config().name(&found.id).resources_vpc_config(open);
            done(&aws, &found.id, call.send().await.unwrap().update().unwrap().id().unwrap()).await;
        })
        .drift("tags", |aws, found| async move {
            let arn = &found.outputs["arn"];
            aws.eks.tag_resource().resource_arn(arn).tags("extra", "x").send().await.unwrap();
        })
        .update(
            "tags",
            &with(|s| {
                s.version = "1.36".to_owned();
                s.tags = retagged(&s.tags);
            }),
        )
        .run()
        .await;
}

async fn done(aws: &Aws, cluster: &str, update: &str) {
    loop {
        let call = aws.eks.describe_update().name(cluster).update_id(update);
        match call.send().await.unwrap().update().unwrap().status() {
            Some(UpdateStatus::InProgress) => aws.clock.sleep(Duration::from_secs(5)).await,
            status => return assert_eq!(status, Some(&UpdateStatus::Successful)),
        }
    }
}

/// A cluster's lifecycle, as far as moto supports it.
async fn cluster_life(ground: &Ground) {
    let kind = on(EksCluster, &ground.aws);
    let site = Site::new(ground).await;
    let want = new(&at("cluster"), &site.state());
    let made = kind.create(&want).await.unwrap();
    let again = kind.create(&want).await.unwrap();
    assert_eq!(made.id, again.id, "the same creation again is the same cluster");
    let found = site.cluster().await;
    assert_eq!(kind.facts.predict(&want, &ground.aws.scope)["arn"], found.outputs["arn"]);
    for output in ["endpoint", "certificate_authority", "issuer", "version"] {
        assert!(!found.outputs[output].is_empty(), "{output}");
    }
    assert_eq!(found.refs, [format!("/aws/eks/{}/cluster", found.id)]);
    for field in ["role", "version", "subnets", "security_groups", "service_cidr", "tags"] {
        assert_eq!(found.state[field], want.state[field], "{field}");
    }
    assert_eq!(ground.observed(&kind, &want.address).await, std::slice::from_ref(&found));
    ground.unmake(&kind, &found).await;
    assert!(kind.delete(&found).await.unwrap());
    assert!(ground.observed(&kind, &want.address).await.is_empty());
}

async fn cluster_key(ground: &Ground) {
    let kind = on(EksCluster, &ground.aws);
    let site = Site::new(ground).await;
    let found = site.cluster().await;
    let keys = on(KmsKey, &ground.aws);
    let key = ground.make(&keys, &at("key"), &key_state(ground, "key")).await.outputs["arn"].clone();
    let state = eks_cluster::State { key: Some(key), ..site.state() };
    let replaced = |want: &eks_cluster::State, found: &Found| {
        super::changes(&kind, &new(&at("cluster"), want), found).iter().map(|c| c.replaces).collect::<Vec<_>>()
    };
    assert_eq!(replaced(&state, &found), [false], "a key can be added");
    kind.update(&found, &new(&at("cluster"), &state), &[]).await.unwrap();
    let found = ground.observed(&kind, &found.address).await.remove(0);
    assert_eq!(found.state, Packed::of(&state).unwrap());
    assert_eq!(replaced(&site.state(), &found), [true], "but not taken away");
    let other = eks_cluster::State { key: Some("arn:aws:kms:us-east-1:123456789012:key/other".to_owned()), ..state };
    assert_eq!(replaced(&other, &found), [true], "nor changed");
    let error = kind.update(&found, &new(&at("cluster"), &site.state()), &[]).await.unwrap_err();
    assert!(error.message.contains("can't be changed or removed"), "{error}");
}

/// A cluster accepts one update at a time: an update of somebody else is waited
/// for.
async fn cluster_busy(ground: &Ground) {
    let kind = on(EksCluster, &ground.aws);
    let site = Site::new(ground).await;
    let found = site.cluster().await;
    let call = ground.aws.eks.update_cluster_config().name(&found.id).deletion_protection(true);
    call.send().await.unwrap();
    let state = eks_cluster::State { support_type: "EXTENDED".to_owned(), ..site.state() };
    kind.update(&found, &new(&at("cluster"), &state), &[]).await.unwrap();
    let found = ground.observed(&kind, &found.address).await.remove(0);
    assert_eq!((&found.state["support_type"], &found.state["deletion_protection"]), (&json!("EXTENDED"), &json!(true)));
}

async fn cluster_upgrade(ground: &Ground) {
    let kind = on(EksCluster, &ground.aws);
    let site = Site::new(ground).await;
    let found = site.cluster().await;
    let at_version =
        |version: &str| new(&at("cluster"), &eks_cluster::State { version: version.to_owned(), ..site.state() });
    let made = kind.update(&found, &at_version("1.37"), &[]).await.unwrap();
    assert_eq!(made.outputs["version"], "1.37", "two minor versions, one after the other");
    let error = kind.update(&found, &at_version("1.36"), &[]).await.unwrap_err();
    assert!(error.message.contains("can't downgrade"), "{error}");
    let error = kind.update(&found, &at_version("1.99"), &[]).await.unwrap_err();
    assert_eq!(error.class, Class::Invalid, "{error}");
}

async fn cluster_protected(ground: &Ground) {
    let kind = on(EksCluster, &ground.aws);
    let site = Site::new(ground).await;
    let state = eks_cluster::State { deletion_protection: true, ..site.state() };
    let found = ground.make(&kind, &at("cluster"), &state).await;
    let error = kind.delete(&found).await.unwrap_err();
    assert!(error.message.contains("protected"), "{error}");
    let lifted = New { state: kind.facts.before_delete(&found).unwrap(), ..new(&at("cluster"), &state) };
    kind.update(&found, &lifted, &[]).await.unwrap();
    let found = ground.observed(&kind, &found.address).await.remove(0);
    assert_eq!(kind.facts.before_delete(&found), None);
    ground.unmake(&kind, &found).await;
}

fn access_policy(name: &str) -> String {
    format!("arn:aws:eks::aws:cluster-access-policy/{name}")
}

fn entry_state(ground: &Ground, cluster: &Found, principal: &str) -> access_entry::State {
    let policy = |name: &str, namespaces: &[&str]| AccessPolicy {
        arn: access_policy(name),
        namespaces: namespaces.iter().map(|n| (*n).to_owned()).collect(),
    };
    let address = entry_address(&cluster.address, principal);
    access_entry::State {
        cluster: cluster.id.clone(),
        principal: principal.to_owned(),
        groups: vec!["tenant:1:dev".to_owned()],
        policies: vec![policy("AmazonEKSViewPolicy", &["t-1", "t-2"]), policy("AmazonEKSAdminViewPolicy", &[])],
        tags: ground.tags(address.as_str()),
    }
}

async fn access_entry(ground: &Ground) {
    let kind = on(AccessEntry, &ground.aws);
    let site = Site::new(ground).await;
    let cluster = site.cluster().await;
    let role = site.role("admin", "ec2.amazonaws.com", &[]).await;
    let state = entry_state(ground, &cluster, &role);
    let address = entry_address(&cluster.address, &role);
    let mut scoped = state.clone();
    scoped.policies[0].namespaces.pop();
    Contract::new(ground, &kind, address.as_str(), &state)
        .update("groups", &access_entry::State { groups: vec![], ..state.clone() })
        .update("groups", &state)
        .update("policies", &scoped)
        .update("policies", &access_entry::State { policies: vec![], ..state.clone() })
        .update("policies", &state)
        .update("tags", &access_entry::State { tags: retagged(&state.tags), ..state.clone() })
        .drift("tags", |aws, found| async move {
            aws.eks.tag_resource().resource_arn(&found.id).tags("extra", "x").send().await.unwrap();
        })
        .drift("groups", |aws, found| async move {
            let call = aws.eks.update_access_entry().cluster_name(text(&found, "cluster"));
            call.principal_arn(text(&found, "principal")).kubernetes_groups("mine").send().await.unwrap();
        })
        .drift("username", |aws, found| async move {
            let call = aws.eks.update_access_entry().cluster_name(text(&found, "cluster"));
            call.principal_arn(text(&found, "principal")).username("victim").send().await.unwrap();
        })
        .drift("policies", |aws, found| async move {
            associate(&aws, text(&found, "cluster"), text(&found, "principal")).await;
        })
        .run()
        .await;
}

fn text<'a>(found: &'a Found, field: &str) -> &'a str {
    found.state[field].as_str().unwrap()
}

/// Makes `principal` an administrator.
async fn associate(aws: &Aws, cluster: &str, principal: &str) {
    let call = aws.eks.associate_access_policy().cluster_name(cluster).principal_arn(principal);
    let call = call.access_scope(AccessScope::builder().r#type(AccessScopeType::Cluster).build());
    call.policy_arn(access_policy("AmazonEKSClusterAdminPolicy")).send().await.unwrap();
}

/// Access entries that somebody added to our cluster are drift. Entries of AWS,
/// of nodes and of the caller are left alone.
async fn entries_by_hand(ground: &Ground) {
    let site = Site::new(ground).await;
    let cluster = site.cluster().await;
    let hand = site.role("hand", "ec2.amazonaws.com", &[]).await;
    let node = site.role("node", "ec2.amazonaws.com", &[]).await;
    let runner = site.role("runner", "ec2.amazonaws.com", &[]).await;
    // A session's ARN doesn't have the path of its role.
    let caller = runner.replace(&format!("ringfence/{}/", ground.aws.tenancy), "");
    let aws = &Arc::new(Aws { caller, ..(*ground.aws).clone() });
    let kind = on(AccessEntry, aws);
    let make = |principal: &str| aws.eks.create_access_entry().cluster_name(&cluster.id).principal_arn(principal);
    let trust = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}"#;
    let other = aws.iam.create_role().role_name("karpenter").assume_role_policy_document(trust).send().await.unwrap();
    let other = other.role().unwrap().arn();
    make(&hand).send().await.unwrap();
    make(&node).r#type("EC2_LINUX").send().await.unwrap();
    make(other).r#type("EC2_LINUX").send().await.unwrap();
    make(&runner).send().await.unwrap();
    associate(aws, &cluster.id, &hand).await;

    // An entry for a node role of ours that no nodes use any more is a
    // leftover.
    let seen = kind.observe(&Round::default(), &[]).await.unwrap();
    let [found, left] = seen.found.as_slice() else { panic!("{:#?}", seen.found) };
    assert_eq!(left.address, entry_address(&cluster.address, &node));
    ground.unmake(&kind, left).await;
    assert_eq!(found.address, entry_address(&cluster.address, &hand));
    assert_eq!(found.state["tags"], json!({}));

    // If the spec wants the entry, it becomes ours. The caller's entry is found
    // like any other.
    let (address, state) = (found.address.as_str(), entry_state(ground, &cluster, &hand));
    let own = entry_state(ground, &cluster, &runner);
    let all = [wanted(address, &state), wanted(&at("own"), &own)];
    let seen = kind.observe(&Round::default(), &all).await.unwrap();
    assert_eq!(seen.found.len(), 2);
    let found = seen.found.iter().find(|f| text(f, "principal") == hand).unwrap();
    kind.update(found, &new(address, &state), &[]).await.unwrap();
    let found = ground.observed(&kind, &found.address).await.remove(0);
    assert_eq!(found.state["tags"], serde_json::to_value(&state.tags).unwrap());
    assert_eq!(found.generation, 1);
    ground.unmake(&kind, &found).await;
}

/// An access entry works only for the role for which it was made, not for a
/// later role with the same name.
async fn stale_entries(ground: &Ground) {
    let aws = &ground.aws;
    let (kind, roles) = (on(AccessEntry, aws), on(IamRole, aws));
    let site = Site::new(ground).await;
    let (cluster, nodes) = site.with_nodes().await;
    let admin = site.role("admin", "ec2.amazonaws.com", &[]).await;
    let state = entry_state(ground, &cluster, &admin);
    let address = entry_address(&cluster.address, &admin);
    ground.make(&kind, address.as_str(), &state).await;
    let call = aws.eks.create_access_entry().cluster_name(&cluster.id).principal_arn(&nodes);
    call.r#type("EC2_LINUX").send().await.unwrap();

    aws.clock.sleep(Duration::from_secs(10)).await;
    for name in ["role-admin", "role-nodes"] {
        let old = ground.observed(&roles, &Address::new(at(name))).await.remove(0);
        ground.unmake(&roles, &old).await;
        ground.make(&roles, &at(name), &old.state).await;
    }
    let found = ground.observed(&kind, &address).await.remove(0);
    let changes = ringfence::engine::diff::changes(&Packed::of(&state).unwrap(), &found.state, kind.facts.rules());
    assert!(matches!(changes.as_slice(), [c] if c.path == "stale" && c.replaces), "{changes:?}");

    // The node group with the new role gets a new entry, and its nodes join.
    group(&site, &cluster, &nodes, "t-1").await;
}

fn addon_state(ground: &Ground, cluster: &Found, name: &str) -> eks_addon::State {
    let version = match name {
        "vpc-cni" => "v1.22.4-eksbuild.1",
        "metrics-server" => "v0.8.1-eksbuild.6",
        _ => "v1.3.10-eksbuild.1",
    };
    eks_addon::State {
        cluster: cluster.id.clone(),
        name: name.to_owned(),
        version: version.to_owned(),
        configuration: json!({}),
        pod_identity: BTreeMap::new(),
        tags: ground.tags(&at(name)),
    }
}

async fn eks_addon(ground: &Ground) {
    let kind = on(EksAddon, &ground.aws);
    let site = Site::new(ground).await;
    let cluster = site.cluster().await;
    let one = site.role("cni", "pods.eks.amazonaws.com", &["AmazonEKS_CNI_Policy"]).await;
    let two = site.role("cni-2", "pods.eks.amazonaws.com", &["AmazonEKS_CNI_Policy"]).await;
    let identity = |role: &str| BTreeMap::from([("aws-node".to_owned(), role.to_owned())]);
    let state = eks_addon::State {
        configuration: json!({"enableNetworkPolicy": "true", "env": {"NETWORK_POLICY_ENFORCING_MODE": "strict"}}),
        pod_identity: identity(&one),
        ..addon_state(ground, &cluster, "vpc-cni")
    };
    let agent = addon_state(ground, &cluster, "eks-pod-identity-agent");
    ground.make(&kind, &at("eks-pod-identity-agent"), &agent).await;
    let plain = eks_addon::State { configuration: json!({}), ..state.clone() };
    Contract::new(ground, &kind, &at("vpc-cni"), &state)
        .update("version", &eks_addon::State { version: "v1.23.1-eksbuild.1".to_owned(), ..state.clone() })
        .update("configuration", &plain)
        .update("configuration", &state)
        .update("pod_identity", &eks_addon::State { pod_identity: identity(&two), ..state.clone() })
        .update("pod_identity", &eks_addon::State { pod_identity: BTreeMap::new(), ..state.clone() })
        .update("pod_identity", &state)
        .update("tags", &eks_addon::State { tags: retagged(&state.tags), ..state.clone() })
        .drift("tags", |aws, found| async move {
            aws.eks.tag_resource().resource_arn(&found.id).tags("extra", "x").send().await.unwrap();
        })
        .drift("configuration", |aws, found| async move {
            let call = aws.eks.update_addon().cluster_name(text(&found, "cluster")).addon_name("vpc-cni");
            let call = call.configuration_values(r#"{"enableNetworkPolicy":"false"}"#);
            call.resolve_conflicts(ResolveConflicts::Overwrite).send().await.unwrap();
            aws.clock.sleep(Duration::from_secs(120)).await;
        })
        .run()
        .await;
    let identities = on(PodIdentity, &ground.aws);
    assert!(identities.observe(&Round::default(), &[]).await.unwrap().found.is_empty(), "an add-on's are its own");
}

async fn addon_degraded(ground: &Ground) {
    let kind = on(EksAddon, &ground.aws);
    let site = Site::new(ground).await;
    let cluster = site.cluster().await;
    let state = addon_state(ground, &cluster, "vpc-cni");
    let broken =
        eks_addon::State { configuration: json!({"env": {"ringfence-sandbox-degraded": "true"}}), ..state.clone() };
    let (broken, want) = (new(&at("vpc-cni"), &broken), new(&at("vpc-cni"), &state));
    kind.create(&broken).await.unwrap();
    let found = settled(ground, &kind, &broken).await;
    assert!(
        matches!(&found.status, Status::Failed { why, .. } if why.contains("ConfigurationConflict")),
        "{:?}",
        found.status
    );
    assert!(matches!(found.status, Status::Failed { repair: Repair::Update, .. }), "{:?}", found.status);
    kind.update(&found, &want, &[]).await.unwrap();
    assert_eq!(settled(ground, &kind, &want).await.status, Status::Ready);

    // Without nodes the add-on can't run. While a step waits, this counts as
    // "in progress", because nodes may come. In a later reading it is a
    // failure.
    let want = new(&at("metrics-server"), &addon_state(ground, &cluster, "metrics-server"));
    kind.create(&want).await.unwrap();
    ground.aws.clock.sleep(Duration::from_secs(300)).await;
    let found = found_by(&kind, &want).await;
    assert!(matches!(&found.status, Status::Pending(why) if why.contains("InsufficientNumberOfReplicas")), "{found:?}");
    let found = ground.observed(&kind, &want.address).await.remove(0);
    assert!(
        matches!(&found.status, Status::Failed { why, .. } if why.contains("InsufficientNumberOfReplicas")),
        "{found:?}"
    );
}

async fn found_by(kind: &Subject, want: &New) -> Found {
    let handle = Handle {
        address: want.address.clone(),
        generation: want.generation,
        id: String::new(),
        state: want.state.clone(),
    };
    kind.find(&[handle]).await.unwrap().remove(0).unwrap()
}

/// Waits until a resource is made or changed, and returns it.
async fn settled(ground: &Ground, kind: &Subject, want: &New) -> Found {
    loop {
        let found = found_by(kind, want).await;
        if !matches!(found.status, Status::Pending(_)) {
            return found;
        }
        ground.aws.clock.sleep(Duration::from_secs(10)).await;
    }
}

async fn pod_identity(ground: &Ground) {
    let kind = on(PodIdentity, &ground.aws);
    let site = Site::new(ground).await;
    let cluster = site.cluster().await;
    let one = site.role("one", "pods.eks.amazonaws.com", &[]).await;
    let two = site.role("two", "pods.eks.amazonaws.com", &[]).await;
    let address = association_address(&cluster.address, "t-1", "uploader");
    let state = pod_identity::State {
        cluster: cluster.id.clone(),
        namespace: "t-1".to_owned(),
        service_account: "uploader".to_owned(),
        role: one,
        tags: ground.tags(address.as_str()),
    };
    Contract::new(ground, &kind, address.as_str(), &state)
        .update("role", &pod_identity::State { role: two.clone(), ..state.clone() })
        .update("role", &state)
        .update("tags", &pod_identity::State { tags: retagged(&state.tags), ..state.clone() })
        .drift("tags", |aws, found| async move {
            let arn = &found.outputs["arn"];
            aws.eks.tag_resource().resource_arn(arn).tags("extra", "x").send().await.unwrap();
        })
        .drift("role", |aws, found| async move {
            let call = aws.eks.update_pod_identity_association().cluster_name(text(&found, "cluster"));
            call.association_id(&found.id).role_arn(two).send().await.unwrap();
        })
        .run()
        .await;
}

async fn associations_by_hand(ground: &Ground) {
    let aws = &ground.aws;
    let kind = on(PodIdentity, aws);
    let site = Site::new(ground).await;
    let cluster = site.cluster().await;
    let role = site.role("hand", "pods.eks.amazonaws.com", &[]).await;
    let call = aws.eks.create_pod_identity_association().cluster_name(&cluster.id).namespace("t-1");
    let call = call.service_account("default").role_arn(&role).disable_session_tags(true);
    call.target_role_arn(&role).send().await.unwrap();
    let seen = kind.observe(&Round::default(), &[]).await.unwrap();
    let [found] = seen.found.as_slice() else { panic!("{:#?}", seen.found) };
    assert_eq!(found.address, association_address(&cluster.address, "t-1", "default"));
    let state = pod_identity::State {
        cluster: cluster.id.clone(),
        namespace: "t-1".to_owned(),
        service_account: "default".to_owned(),
        role,
        tags: ground.tags(&at("wanted")),
    };
    let seen = kind.observe(&Round::default(), &[wanted(&at("wanted"), &state)]).await.unwrap();
    assert_eq!(seen.found[0].address, Address::new(at("wanted")));
    let want = Packed::of(&state).unwrap();
    let changes = ringfence::engine::diff::changes(&want, &seen.found[0].state, kind.facts.rules());
    for path in ["session_tags", "target_role"] {
        assert!(changes.iter().any(|c| c.path == path && c.replaces), "{path}: {changes:?}");
    }
    ground.unmake(&kind, found).await;
}

fn template_state(ground: &Ground, site: &Site<'_>) -> launch_template::State {
    let volume = |device: &str| launch_template::Volume {
        device: device.to_owned(),
        size: Some(30),
        kind: "gp3".to_owned(),
        iops: None,
        throughput: None,
        encrypted: true,
        key: None,
        delete_on_termination: true,
    };
    launch_template::State {
        name: format!("{}-nodes", ground.aws.tenancy),
        image: None,
        security_groups: vec![site.groups[2].clone()],
        metadata: launch_template::Metadata {
            endpoint: "enabled".to_owned(),
            tokens: "required".to_owned(),
            hop_limit: 1,
            ipv6: "disabled".to_owned(),
            instance_tags: "disabled".to_owned(),
        },
        volumes: vec![volume("/dev/xvda"), volume("/dev/xvdb")],
        user_data: "[settings.kubernetes]\npod-pids-limit = 1024\n".to_owned(),
        instance_tags: [("Name".to_owned(), "node".to_owned())].into(),
        other: BTreeMap::new(),
        tags: ground.tags(&at("template")),
    }
}

async fn group_state(site: &Site<'_>, cluster: &Found, role: &str, name: &str) -> node_group::State {
    let (ground, templates) = (site.ground, on(LaunchTemplate, &site.ground.aws));
    let address = Address::new(at("template"));
    let template = match ground.observed(&templates, &address).await.pop() {
        Some(template) => template,
        None => ground.make(&templates, &at("template"), &template_state(ground, site)).await,
    };
    let taint = |effect: &str| Taint { key: "tenantID".to_owned(), value: "1".to_owned(), effect: effect.to_owned() };
    node_group::State {
        cluster: cluster.id.clone(),
        name: name.to_owned(),
        role: role.to_owned(),
        subnets: site.subnets[..2].to_vec(),
        ami_type: "BOTTLEROCKET_x86_64".to_owned(),
        capacity_type: "ON_DEMAND".to_owned(),
        instance_types: vec!["m7i.large".to_owned(), "m6i.large".to_owned()],
        template: template.outputs["id"].clone(),
        template_version: template.outputs["version"].clone(),
        instance_tags: [("Name".to_owned(), "node".to_owned())].into(),
        labels: [("tenantID".to_owned(), "1".to_owned())].into(),
        taints: vec![taint("NO_EXECUTE"), taint("NO_SCHEDULE")],
        min: 2,
        max: 4,
        desired: 2,
        max_unavailable: "33%".to_owned(),
        version: "1.35".to_owned(),
        release_version: None,
        repair: Some(true),
        tags: ground.tags(&at(name)),
    }
}

fn node_groups(aws: &Arc<Aws>) -> Subject {
    on(NodeGroup, aws)
}

/// A node group whose nodes have joined.
async fn group(site: &Site<'_>, cluster: &Found, role: &str, name: &str) -> Found {
    let state = group_state(site, cluster, role, name).await;
    site.ground.make(&node_groups(&site.ground.aws), &at(name), &state).await
}

async fn node_group(ground: &Ground) {
    let (kind, templates) = (node_groups(&ground.aws), on(LaunchTemplate, &ground.aws));
    let site = Site::new(ground).await;
    let (cluster, role) = site.with_nodes().await;
    let state = group_state(&site, &cluster, &role, "t-1").await;
    let mut other = state.taints[0].clone();
    other.value = "2".to_owned();
    let found = ground.observed(&templates, &Address::new(at("template"))).await.remove(0);
    let user_data = "[settings.kubernetes]\npod-pids-limit = 512\n".to_owned();
    let newer = launch_template::State { user_data, ..template_state(ground, &site) };
    let newer = templates.update(&found, &new(&at("template"), &newer), &[]).await.unwrap().outputs["version"].clone();
    let resized = node_group::State { min: 3, max: 6, ..state.clone() };
    Contract::new(ground, &kind, &at("t-1"), &state)
        .update(
            "labels",
            &node_group::State {
                labels: [("tenantID".to_owned(), "1".to_owned()), ("tier".to_owned(), "standard".to_owned())].into(),
                ..state.clone()
            },
        )
        .update("taints", &node_group::State { taints: vec![other, state.taints[1].clone()], ..state.clone() })
        .update("taints", &state)
        .update("min", &resized)
        .update("max_unavailable", &node_group::State { max_unavailable: "2".to_owned(), ..resized.clone() })
        .update("max", &state)
        .update("template_version", &node_group::State { template_version: newer, ..state.clone() })
        .update("tags", &node_group::State { tags: retagged(&state.tags), ..state.clone() })
        .drift("tags", |aws, found| async move {
            aws.eks.tag_resource().resource_arn(&found.id).tags("extra", "x").send().await.unwrap();
        })
        .drift("labels", |aws, found| async move {
            let labels = UpdateLabelsPayload::builder().add_or_update_labels("mine", "x").remove_labels("tenantID");
            by_hand(&aws, &found, |call| call.labels(labels.build())).await;
        })
        .drift("taints", |aws, found| async move {
            let taint = aws_sdk_eks::types::Taint::builder().key("tenantID").value("1");
            let taint = taint.effect(aws_sdk_eks::types::TaintEffect::NoSchedule).build();
            let taints = UpdateTaintsPayload::builder().remove_taints(taint).build();
            by_hand(&aws, &found, |call| call.taints(taints)).await;
        })
        .drift("max", |aws, found| async move {
            let size = NodegroupScalingConfig::builder().min_size(1).max_size(9).desired_size(8).build();
            by_hand(&aws, &found, |call| call.scaling_config(size)).await;
        })
        .run()
        .await;
}

/// A node group follows its cluster's version, except if its launch template
/// names an image: then the image decides.
async fn group_follows_cluster(ground: &Ground) {
    let (kind, clusters) = (node_groups(&ground.aws), on(EksCluster, &ground.aws));
    let templates = on(LaunchTemplate, &ground.aws);
    let site = Site::new(ground).await;
    let (cluster, role) = site.with_nodes().await;
    let plain = group_state(&site, &cluster, &role, "t-1").await;
    let plain = node_group::State { release_version: Some("1.66.0-2d3f4b6c".to_owned()), ..plain };
    ground.make(&kind, &at("t-1"), &plain).await;
    let own = launch_template::State {
        image: Some("ami-0123456789abcdef0".to_owned()),
        name: format!("{}-own", ground.aws.tenancy),
        tags: ground.tags(&at("own-template")),
        ..template_state(ground, &site)
    };
    let own = ground.make(&templates, &at("own-template"), &own).await;
    let custom = node_group::State {
        name: "t-2".to_owned(),
        ami_type: "CUSTOM".to_owned(),
        release_version: None,
        template: own.outputs["id"].clone(),
        template_version: own.outputs["version"].clone(),
        tags: ground.tags(&at("t-2")),
        ..plain.clone()
    };
    let made = ground.make(&kind, &at("t-2"), &custom).await;
    assert_eq!(made.state, Packed::of(&custom).unwrap());

    let newer = eks_cluster::State { version: "1.36".to_owned(), ..site.state() };
    clusters.update(&cluster, &new(&at("cluster"), &newer), &[]).await.unwrap();
    for state in [plain, custom] {
        let state = node_group::State { version: "1.36".to_owned(), ..state };
        let want = new(&at(&state.name), &state);
        let found = ground.observed(&kind, &want.address).await.remove(0);
        let changes = ringfence::engine::diff::changes(&want.state, &found.state, kind.facts.rules());
        let paths: Vec<&str> = changes.iter().map(|c| c.path.as_str()).collect();
        assert_eq!(paths, if state.ami_type == "CUSTOM" { vec![] } else { vec!["version"] });
        kind.update(&found, &want, &changes).await.unwrap();
        assert_eq!(ground.observed(&kind, &want.address).await.remove(0).state, want.state);
    }
}

type ConfigCall = aws_sdk_eks::operation::update_nodegroup_config::builders::UpdateNodegroupConfigFluentBuilder;

async fn by_hand(aws: &Arc<Aws>, found: &Found, change: impl FnOnce(ConfigCall) -> ConfigCall) {
    let call = aws.eks.update_nodegroup_config().cluster_name(text(found, "cluster"));
    change(call.nodegroup_name(&found.outputs["name"])).send().await.unwrap();
    aws.clock.sleep(Duration::from_secs(300)).await;
}

/// A node group's lifecycle, as far as moto supports it, and a second
/// generation beside the first.
async fn group_life(ground: &Ground) {
    let kind = node_groups(&ground.aws);
    let site = Site::new(ground).await;
    let (cluster, role) = site.with_nodes().await;
    let want = new(&at("t-1"), &group_state(&site, &cluster, &role, "t-1").await);
    let made = kind.create(&want).await.unwrap();
    let again = kind.create(&want).await.unwrap();
    assert_eq!(made.id, again.id, "the same creation again is the same group");
    let first = settled(ground, &kind, &want).await;
    assert_eq!((&first.status, &first.id), (&Status::Ready, &made.id));
    assert_eq!(kind.facts.predict(&want, &ground.aws.scope)["name"], first.outputs["name"]);
    let changes = ringfence::engine::diff::changes(&want.state, &first.state, kind.facts.rules());
    let lost = |path: &str| ["max_unavailable", "repair"].contains(&path) && !ground.has(node_group::NAME);
    assert!(changes.iter().all(|c| lost(&c.path)), "{changes:?}");

    let second = New { generation: 2, token: "2".repeat(64), ..want.clone() };
    kind.create(&second).await.unwrap();
    let second = settled(ground, &kind, &second).await;
    assert_eq!(second.outputs["name"], "t-1-g2");
    assert_eq!(second.state, first.state);
    assert_eq!(ground.observed(&kind, &want.address).await.len(), 2);
    ground.unmake(&kind, &first).await;
    ground.unmake(&kind, &second).await;
    assert!(kind.delete(&second).await.unwrap(), "absent already");
}

async fn node_group_failed(ground: &Ground) {
    let kind = node_groups(&ground.aws);
    let site = Site::new(ground).await;
    let (cluster, role) = site.with_nodes().await;
    let mut state = group_state(&site, &cluster, &role, "t-1").await;
    state.instance_types = vec!["t3.broken".to_owned()];
    let want = new(&at("t-1"), &state);
    kind.create(&want).await.unwrap();
    let found = settled(ground, &kind, &want).await;
    assert!(
        matches!(&found.status, Status::Failed { why, .. } if why.contains("AsgInstanceLaunchFailures")),
        "{found:?}"
    );
    assert!(matches!(found.status, Status::Failed { repair: Repair::Replace, .. }), "{:?}", found.status);
    ground.unmake(&kind, &found).await;
}

async fn profile_state(site: &Site<'_>, cluster: &Found, name: &str) -> fargate_profile::State {
    let ground = site.ground;
    let service = "eks-fargate-pods.amazonaws.com";
    let role = site.role(name, service, &["AmazonEKSFargatePodExecutionRolePolicy"]).await;
    let selector = |labels: &[(&str, &str)]| Selector {
        namespace: name.to_owned(),
        labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
    };
    fargate_profile::State {
        cluster: cluster.id.clone(),
        name: name.to_owned(),
        role,
        subnets: site.subnets[..2].to_vec(),
        selectors: vec![selector(&[("app", "web")]), selector(&[])],
        tags: ground.tags(&at(name)),
    }
}

async fn fargate_profile(ground: &Ground) {
    let kind = on(FargateProfile, &ground.aws);
    let site = Site::new(ground).await;
    let cluster = site.cluster().await;
    let state = profile_state(&site, &cluster, "t-1").await;
    Contract::new(ground, &kind, &at("t-1"), &state)
        .part(PROFILE_TAGS, |contract| {
            contract.update("tags", &fargate_profile::State { tags: retagged(&state.tags), ..state.clone() }).drift(
                "tags",
                |aws, found| async move {
                    aws.eks.tag_resource().resource_arn(&found.id).tags("extra", "x").send().await.unwrap();
                },
            )
        })
        .run()
        .await;
}

/// While one profile changes, EKS refuses a change of another one. That error
/// is tried again.
async fn profiles_one_at_a_time(ground: &Ground) {
    let kind = on(FargateProfile, &ground.aws);
    let site = Site::new(ground).await;
    let cluster = site.cluster().await;
    let one = profile_state(&site, &cluster, "t-1").await;
    let two = new(&at("t-2"), &profile_state(&site, &cluster, "t-2").await);
    let one = ground.make(&kind, &at("t-1"), &one).await;
    assert!(!kind.delete(&one).await.unwrap());
    assert_eq!(kind.create(&two).await.unwrap_err().class, Class::Conflict);
    assert_eq!(kind.facts.lane(&one.state), kind.facts.lane(&two.state));
}

/// The log group of our cluster is ours. Log groups of other clusters aren't.
async fn logs_of_clusters(ground: &Ground) {
    let aws = &ground.aws;
    let kind = on(LogGroup, aws);
    let site = Site::new(ground).await;
    let cluster = site.cluster().await;
    let theirs = format!("{}-theirs", aws.tenancy);
    let vpc = VpcConfigRequest::builder().set_subnet_ids(Some(site.subnets[..2].to_vec())).build();
    aws.eks.create_cluster().name(&theirs).role_arn(&site.role).resources_vpc_config(vpc).send().await.unwrap();
    let name = |cluster: &str| format!("/aws/eks/{cluster}/cluster");
    let all = kind.observe(&Round::default(), &[]).await.unwrap().found;
    if !all.iter().any(|f| f.id == name(&cluster.id)) {
        aws.logs.create_log_group().log_group_name(name(&cluster.id)).send().await.unwrap();
    }
    let _ = aws.logs.create_log_group().log_group_name(name(&theirs)).send().await;
    let seen = kind.observe(&Round::default(), &[]).await.unwrap();
    let [found] = seen.found.as_slice() else { panic!("{:#?}", seen.found) };
    assert_eq!((&found.id, &found.address), (&name(&cluster.id), &cluster.address.join("log-group")));

    let state =
        log_group::State { name: name(&theirs), retention_days: None, key: None, tags: ground.tags(&at("foreign")) };
    is_foreign(ground, &kind, &state, "aws logs tag-resource").await;
    ground.unmake(&kind, found).await;
}

async fn foreign_names(ground: &Ground) {
    let aws = &ground.aws;
    let site = Site::new(ground).await;
    let (cluster, role) = site.with_nodes().await;
    let command = "aws eks tag-resource --resource-arn";

    let group = group_state(&site, &cluster, &role, "t-9").await;
    let call = aws.eks.create_nodegroup().cluster_name(&cluster.id).nodegroup_name("t-9").node_role(&role);
    call.set_subnets(Some(group.subnets.clone())).send().await.unwrap();
    is_foreign(ground, &node_groups(aws), &group, command).await;

    let profile = profile_state(&site, &cluster, "t-9").await;
    let call = aws.eks.create_fargate_profile().cluster_name(&cluster.id).fargate_profile_name("t-9");
    let selector = aws_sdk_eks::types::FargateProfileSelector::builder().namespace("t-9").build();
    let call = call.pod_execution_role_arn(&profile.role).selectors(selector);
    call.set_subnets(Some(profile.subnets.clone())).send().await.unwrap();
    is_foreign(ground, &on(FargateProfile, aws), &profile, command).await;

    let addon = addon_state(ground, &cluster, "eks-pod-identity-agent");
    aws.eks.create_addon().cluster_name(&cluster.id).addon_name(&addon.name).send().await.unwrap();
    is_foreign(ground, &on(EksAddon, aws), &addon, command).await;

    let other = eks_cluster::State { name: format!("{}-t-9", aws.tenancy), ..site.state() };
    let vpc = VpcConfigRequest::builder().set_subnet_ids(Some(other.subnets.clone())).build();
    let call = aws.eks.create_cluster().name(&other.name).role_arn(&other.role).resources_vpc_config(vpc);
    call.send().await.unwrap();
    is_foreign(ground, &on(EksCluster, aws), &other, command).await;
    assert!(!site.vpc.is_empty());
}

/// The versions and images that EKS and the region offer.
async fn offers(ground: &Ground) {
    let aws = &ground.aws;
    let all = versions::cluster_versions(aws).await.unwrap();
    assert_eq!(all.iter().filter(|v| v.default).count(), 1);
    assert!(all.windows(2).all(|w| compare(&w[0].version, &w[1].version).is_gt()));
    assert!(all.iter().all(|v| v.standard_until < v.extended_until));

    let names = ["vpc-cni", "coredns", "metrics-server", "no-such-add-on"];
    let addons = versions::addon_versions(aws, "1.36", &names).await.unwrap();
    assert_eq!(addons.keys().collect::<Vec<_>>(), ["coredns", "metrics-server", "vpc-cni"]);
    for (name, offered) in &addons {
        assert_eq!(offered.iter().filter(|v| v.default).count(), 1, "{name}");
        assert!(offered.windows(2).all(|w| compare(&w[0].version, &w[1].version).is_gt()), "{name}");
    }
    let one = versions::addon_versions(aws, "1.36", &["vpc-cni"]).await.unwrap();
    assert_eq!(one["vpc-cni"], addons["vpc-cni"]);

    let zones = versions::zones(aws).await.unwrap();
    assert!(zones.len() >= 3);
    assert!(zones.iter().all(|z| z.name.starts_with("us-east-1") && z.id != "use1-az3"), "{zones:?}");
}
