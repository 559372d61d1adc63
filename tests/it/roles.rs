//! What an attacker can do with the credentials of an estate's roles. After a container escape, the attacker has the
//! credentials of the node's role and of the network plugin's role. The sandbox enforces the policies of the roles.

use aws_sdk_ec2::types::Tag;
use aws_sdk_iam::types::{ContextEntry, ContextKeyTypeEnum, PolicyEvaluationDecisionType};
use ringfence::aws::error::failed;
use ringfence::aws::{Aws, tags};
use ringfence::engine::error::{Class, Result};

use crate::permissions::{example, printed};
use crate::support::served::Served;

/// Whether a role may do something, with one condition key.
async fn may(aws: &Aws, role: &str, action: &str, resource: &str, (key, value): (&str, &str)) -> bool {
    let source = format!("arn:aws:iam::{}:role/ringfence/{role}", aws.scope.account);
    let kind = ContextKeyTypeEnum::String;
    let entry = ContextEntry::builder().context_key_name(key).context_key_type(kind).context_key_values(value).build();
    let call = aws.iam.simulate_principal_policy().policy_source_arn(source).action_names(action);
    let answer = call.resource_arns(resource).context_entries(entry).send().await.unwrap();
    answer.evaluation_results()[0].eval_decision() == &PolicyEvaluationDecisionType::Allowed
}

/// Asserts that the action is refused. Panics with the answer otherwise.
#[track_caller]
fn denied<T: std::fmt::Debug>(answer: Result<T>, action: &str) {
    let error = answer.expect_err(action);
    assert_eq!(error.class, Class::Denied, "{error}");
    assert!(error.message.contains(&format!("is not authorized to perform: {action} on resource: ")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_plugin_of_a_cluster_reaches_no_interface_of_another() {
    let spec = example("three-tiers");
    let mut served = Served::enforced(&spec, &printed(&spec, "apply").to_string()).await;
    served.act_as_administrator();
    served.run(&["apply", "--auto-approve"], 0).await;
    let admin = served.connect("us-east-1", "acme").await;
    let subnets = admin.ec2.describe_subnets().send().await.unwrap().subnets.unwrap();
    let subnet_of = |owner: &str| {
        let lies = |tag: &Tag| tag.key() == Some(tags::ADDRESS) && tag.value().is_some_and(|at| at.starts_with(owner));
        subnets.iter().find(|s| s.tags().iter().any(lies)).and_then(|s| s.subnet_id()).unwrap().to_owned()
    };
    let interface = async |aws: &Aws, subnet: &str| {
        let made = aws.ec2.create_network_interface().subnet_id(subnet).send().await;
        made.map(|o| o.network_interface.unwrap().network_interface_id.unwrap())
            .map_err(failed("ec2:CreateNetworkInterface"))
    };
    let (own, other) = (subnet_of("tenant/12345/silo/"), subnet_of("pool/shared-1/"));
    let theirs = interface(&admin, &other).await.unwrap();

    served.act_in("acme-us-east-1-t-12345-vpc-cni").await;
    let stolen = served.connect("us-east-1", "acme").await;
    denied(interface(&stolen, &other).await, "ec2:CreateNetworkInterface");
    // The plugin's own tag on the interface makes no difference, and the role can't put it there.
    let tag = |id: &str| {
        let tag = Tag::builder().key("cluster.k8s.amazonaws.com/name").value("acme-t-12345").build();
        stolen.ec2.create_tags().resources(id).tags(tag)
    };
    denied(tag(&theirs).send().await.map_err(failed("ec2:CreateTags")), "ec2:CreateTags");
    let delete = async |id: &str| {
        let gone = stolen.ec2.delete_network_interface().network_interface_id(id).send().await;
        gone.map_err(failed("ec2:DeleteNetworkInterface"))
    };
    denied(delete(&theirs).await, "ec2:DeleteNetworkInterface");

    // In its own VPC the plugin can do its work.
    let ours = interface(&stolen, &own).await.unwrap();
    tag(&ours).send().await.unwrap();
    delete(&ours).await.unwrap();
    let vpc = |aws: &Aws, id: &str| format!("arn:aws:ec2:us-east-1:{}:vpc/{id}", aws.scope.account);
    let vpc_of = |subnet: &str| subnets.iter().find(|s| s.subnet_id() == Some(subnet)).unwrap().vpc_id().unwrap();
    let (mine, else_where) = (vpc(&admin, vpc_of(&own)), vpc(&admin, vpc_of(&other)));
    let eni = format!("arn:aws:ec2:us-east-1:{}:network-interface/eni-1", admin.scope.account);
    for action in [
        "ec2:AssignPrivateIpAddresses",
        "ec2:AttachNetworkInterface",
        "ec2:DetachNetworkInterface",
        "ec2:ModifyNetworkInterfaceAttribute",
        "ec2:UnassignPrivateIpAddresses",
    ] {
        let role = "acme-us-east-1-t-12345-vpc-cni";
        assert!(may(&admin, role, action, &eni, ("ec2:Vpc", &mine)).await, "{action}");
        assert!(!may(&admin, role, action, &eni, ("ec2:Vpc", &else_where)).await, "{action}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_pull_only_images_of_their_tenant_the_shared_ones_and_those_of_eks() {
    let spec = example("three-tiers");
    let served = Served::start(&spec).await;
    served.run(&["apply", "--auto-approve"], 0).await;
    let aws = served.connect("us-east-1", "acme").await;
    let account = aws.scope.account.clone();
    let repository = |account: &str, name: &str| format!("arn:aws:ecr:us-east-1:{account}:repository/{name}");
    let pulls = async |role: &str, account: &str, name: &str| {
        may(&aws, role, "ecr:BatchGetImage", &repository(account, name), ("aws:ResourceAccount", account)).await
    };
    let roles = [
        ("acme-us-east-1-t-12345-silo-nodes", Some("12345")),
        ("acme-us-east-1-t-23456-pool-shared-1-nodes", Some("23456")),
        ("acme-us-east-1-t-34567-fargate-shared-1-pod-execution", Some("34567")),
        ("acme-us-east-1-p-shared-1-system-nodes", None),
        ("acme-us-east-1-t-12345-system-nodes", None),
    ];
    for (role, tenant) in roles {
        assert!(may(&aws, role, "ecr:GetAuthorizationToken", "*", ("x", "x")).await, "{role}");
        assert!(pulls(role, &account, "acme/shared/proxy").await, "{role}");
        assert!(pulls(role, "602401143452", "eks/coredns").await, "{role}");
        for id in ["12345", "23456", "34567"] {
            assert_eq!(pulls(role, &account, &format!("acme/{id}/app")).await, tenant == Some(id), "{role}: {id}");
        }
        for other in
            ["app", "acme", "acme/shared", "acme/shared-keys/x", "acme/123456/x", "other/shared/x", "eks/coredns"]
        {
            assert!(!pulls(role, &account, other).await, "{role}: {other}");
        }
        assert!(!pulls(role, "999999999999", "acme/shared/proxy").await, "{role}");
    }
}
