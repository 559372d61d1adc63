//! A destroy that resources of somebody else block. It deletes everything that
//! it may, soon says what it can't delete and why, and succeeds after the
//! blocking resource is removed.

use aws_sdk_ec2::types::{IpPermission, UserIdGroupPair};

use super::*;

/// The blocking resource: its name in messages, and how to remove it.
type Removal = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

struct Hold {
    /// The address whose deletion is blocked.
    of: &'static str,
    named: Vec<String>,
    remove: Box<dyn FnOnce() -> Removal + Send>,
}

fn hold(of: &'static str, named: Vec<String>, remove: impl Future<Output = ()> + Send + 'static) -> Hold {
    Hold { of, named, remove: Box::new(|| Box::pin(remove)) }
}

async fn id(ground: &Ground, address: &str) -> String {
    let session = ground.session().await.unwrap();
    let (look, _) = session.plan(&apply(), false).await.unwrap();
    look.observed.current(&ringfence::engine::address::Address::new(address)).unwrap().id.clone()
}

async fn aws(ground: &Ground) -> Arc<Aws> {
    ground.session().await.unwrap().aws.clone()
}

/// Runs an apply, `plant`, a blocked destroy, and another destroy after the
/// blocking resource is removed.
async fn blocked(spec: &str, what: &str, plant: impl AsyncFnOnce(&Ground) -> Hold) {
    let ground = Ground::new(spec);
    ground.undisturbed(&apply()).await;
    let hold = plant(&ground).await;
    let report = ground.run(&destroy()).await.unwrap();
    let failed: Vec<_> = report.failed().collect();
    let of: Vec<_> = failed.iter().map(|(line, _)| line.address.as_str()).collect();
    assert_eq!(of, [hold.of], "{what}: {failed:#?}");
    let error = failed[0].1;
    let said = format!("{error}");
    for name in &hold.named {
        assert!(said.contains(name), "{what}: {said}");
    }
    assert!(error.help.as_deref().is_some_and(|help| help.contains("run the same command")), "{error:?}");
    // The destroy waits long enough for resources that disappear by themselves,
    // but not half an hour.
    let took = report.took.as_secs();
    assert!(took < 45 * 60, "{what}: {took} s");
    // Everything else is deleted, except the resources that contain the
    // blocking one.
    let left: Vec<_> = report.left().map(|line| line.address.to_string()).collect();
    let session = ground.session().await.unwrap();
    let (_, plan) = session.plan(&destroy(), false).await.unwrap();
    let still: Vec<_> = plan.steps.iter().map(|s| s.address.to_string()).collect();
    let wanted: Vec<_> = [vec![hold.of.to_owned()], left].concat();
    assert_eq!(still.iter().collect::<std::collections::BTreeSet<_>>(), wanted.iter().collect(), "{what}");

    (hold.remove)().await;
    ground.undisturbed(&destroy()).await;
    let mut left = ground.estate().addresses();
    left.retain(|address, _| !address.ends_with("/key"));
    assert!(left.is_empty(), "{what}: {left:?}");
    note(&format!("destroy, held by {what}"), 1, "the rest gone, the holder named; gone once it is removed");
}

/// Makes a security group of somebody else in our VPC, as for load balancers.
async fn foreign_group(aws: &Aws, vpc: &str, name: &str) -> String {
    let made = aws.ec2.create_security_group().vpc_id(vpc).group_name(name).description("theirs").send().await;
    made.unwrap().group_id().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_balancers_interface() {
    blocked(&alone("premium"), "a load balancer's interface", async |ground| {
        let aws = aws(ground).await;
        let (vpc, subnet) = (id(ground, "tenant/7/silo/vpc").await, id(ground, "tenant/7/silo/subnet/private-b").await);
        let group = foreign_group(&aws, &vpc, "k8s-elb-shop").await;
        let made = aws.ec2.create_network_interface().subnet_id(&subnet).groups(&group);
        let made = made.description("ELB app/shop/50dc6c495c0c9188").send().await.unwrap();
        let interface = made.network_interface().unwrap().network_interface_id().unwrap().to_owned();
        let named = vec![interface.clone(), "ELB app/shop".to_owned()];
        hold("tenant/7/silo/subnet/private-b", named, async move {
            aws.ec2.delete_network_interface().network_interface_id(interface).send().await.unwrap();
            aws.ec2.delete_security_group().group_id(group).send().await.unwrap();
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_balancers_group() {
    blocked(&alone("premium"), "a load balancer's security group", async |ground| {
        let aws = aws(ground).await;
        let group = foreign_group(&aws, &id(ground, "tenant/7/silo/vpc").await, "k8s-traffic-shop").await;
        let named = vec![group.clone(), "k8s-traffic-shop".to_owned()];
        hold("tenant/7/silo/vpc", named, async move {
            aws.ec2.delete_security_group().group_id(group).send().await.unwrap();
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_of_another_group() {
    blocked(&alone("premium"), "a rule of another security group", async |ground| {
        let aws = aws(ground).await;
        let group = foreign_group(&aws, &id(ground, "tenant/7/silo/vpc").await, "database").await;
        let ours = id(ground, "tenant/7/silo/security-group").await;
        let peer = UserIdGroupPair::builder().group_id(&ours).build();
        let rule = IpPermission::builder().ip_protocol("tcp").from_port(5432).to_port(5432).user_id_group_pairs(peer);
        let call = aws.ec2.authorize_security_group_ingress().group_id(&group).ip_permissions(rule.build());
        call.send().await.unwrap();
        let named = vec![group.clone(), "a rule of security group".to_owned(), "database".to_owned()];
        hold("tenant/7/silo/security-group", named, async move {
            aws.ec2.delete_security_group().group_id(group).send().await.unwrap();
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subnet_of_somebody_else() {
    blocked(&alone("premium"), "somebody else's subnet", async |ground| {
        let aws = aws(ground).await;
        let vpc = id(ground, "tenant/7/silo/vpc").await;
        let mut made = None;
        for block in 0..=255 {
            let call = aws.ec2.create_subnet().vpc_id(&vpc).cidr_block(format!("10.64.{block}.0/28"));
            made = made.or(call.send().await.ok());
            if made.is_some() {
                break;
            }
        }
        let subnet = made.unwrap().subnet().unwrap().subnet_id().unwrap().to_owned();
        hold("tenant/7/silo/vpc", vec![format!("subnet {subnet}")], async move {
            aws.ec2.delete_subnet().subnet_id(subnet).send().await.unwrap();
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_group_of_somebody_else() {
    blocked(&alone("premium"), "somebody else's node group", async |ground| {
        let session = ground.session().await.unwrap();
        let (look, _) = session.plan(&apply(), false).await.unwrap();
        let ours = look.observed.found.iter().find(|(a, _)| look.observed.kinds[*a] == "aws.node-group").unwrap();
        let state = &ours.1[0].state;
        let text = |field: &str| state[field].as_str().unwrap().to_owned();
        let subnets = state["subnets"].as_array().unwrap().iter().map(|s| s.as_str().unwrap().to_owned()).collect();
        let aws = session.aws.clone();
        // The foreign resource gets a role of its own, because our roles are
        // deleted.
        let trust = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}"#;
        let role = aws.iam.create_role().role_name("theirs").assume_role_policy_document(trust).send().await.unwrap();
        let role = role.role().unwrap().arn().to_owned();
        for policy in ["AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly", "AmazonEKS_CNI_Policy"] {
            let arn = format!("arn:aws:iam::aws:policy/{policy}");
            aws.iam.attach_role_policy().role_name("theirs").policy_arn(arn).send().await.unwrap();
        }
        let cluster = text("cluster");
        let call = aws.eks.create_nodegroup().cluster_name(&cluster).nodegroup_name("theirs").node_role(role);
        call.set_subnets(Some(subnets)).send().await.unwrap();
        ground.server.advance(600.0);
        hold("tenant/7/silo/cluster", vec!["node group `theirs`".to_owned()], {
            async move {
                aws.eks.delete_nodegroup().cluster_name(&cluster).nodegroup_name("theirs").send().await.unwrap();
                // A cluster can't be deleted before its node groups are gone.
                while aws.eks.describe_nodegroup().cluster_name(&cluster).nodegroup_name("theirs").send().await.is_ok() {}
            }
        })
    })
    .await;
}

/// Interfaces that our own clusters leave behind are deleted with them.
#[tokio::test(flavor = "multi_thread")]
async fn interfaces_of_pods_block_nothing() {
    let ground = Ground::new(&alone("premium"));
    ground.undisturbed(&apply()).await;
    let aws = aws(&ground).await;
    for (subnet, description) in [
        ("private-a", "aws-K8S-i-0e6b6b7b5c1b2a3d4"),
        ("private-b", "aws-k8s-branch-eni"),
        ("private-b", "aws-K8S-i-1"),
    ] {
        let subnet = id(&ground, &format!("tenant/7/silo/subnet/{subnet}")).await;
        let group = id(&ground, "tenant/7/silo/security-group").await;
        let call = aws.ec2.create_network_interface().subnet_id(subnet).groups(group).description(description);
        call.send().await.unwrap();
    }
    ground.undisturbed(&destroy()).await;
    note("destroy, with three interfaces that pods left behind", 1, "everything gone");
}
