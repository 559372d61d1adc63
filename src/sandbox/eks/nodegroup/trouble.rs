//! The reasons why the nodes of a node group don't run.

use super::super::super::ec2::types::InstanceType;
use super::super::super::iam::{Role, enforce};
use super::super::super::quotas;
use super::super::super::wire::{items, texts};
use super::super::{Cluster, World, partition};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// The reason why a group's nodes don't run: issue code, message, resource. `None`: they run.
pub(super) fn trouble(w: &World<'_>, cluster: &Cluster, body: &Value) -> Option<(&'static str, String, String)> {
    let name = body["nodegroupName"].as_str().unwrap_or_default().to_owned();
    let id = body["launchTemplate"]["id"].as_str().unwrap_or_default();
    let version = body["launchTemplate"]["version"].as_str().unwrap_or_default();
    let data = w.here.ec2.launch_template(id, version).map(|template| template.data).unwrap_or_default();
    if texts(body, "instanceTypes").iter().any(|kind| kind == "t3.broken") || data["instanceType"] == "t3.broken" {
        let message = "Could not launch On-Demand Instances. InsufficientInstanceCapacity - We currently do not have sufficient t3.broken capacity.";
        return Some(("AsgInstanceLaunchFailures", message.to_owned(), name));
    }
    if let Some(message) = too_many_vcpus(w, cluster, body) {
        return Some(("AsgInstanceLaunchFailures", message, name));
    }
    let partition = partition(w.region);
    let scaling = format!(
        "arn:{partition}:iam::{}:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling",
        w.account
    );
    for mapping in items(&data, "blockDeviceMappingSet") {
        let key = mapping["ebs"]["kmsKeyId"].as_str().filter(|key| !key.contains("alias/aws/"));
        let Some(key) = key else { continue };
        let may = w.here.kms.named(key).is_some_and(|key| {
            key.enabled().is_ok()
                && ["kms:CreateGrant", "kms:Decrypt", "kms:GenerateDataKeyWithoutPlaintext"]
                    .iter()
                    .all(|action| key.allows("AWS", &scaling, action))
        });
        if !may {
            let message = format!(
                "Instance became unhealthy while waiting for instance to be in InService state. Termination Reason: Client.InvalidKMSKey.InvalidState: The KMS key {key} provided is in an incorrect state"
            );
            return Some(("AsgInstanceLaunchFailures", message, name));
        }
    }
    let unjoined = |why: &str| {
        let message = format!("Instances failed to join the kubernetes cluster: {why}");
        Some(("NodeCreationFailure", message, name.clone()))
    };
    let Some(role) = w.role(body["nodeRole"].as_str().unwrap_or_default()) else {
        return unjoined("the node role does not exist");
    };
    // A FIPS image calls AWS's FIPS endpoints unless its settings forbid it (bottlerocket-core-kit, pull request 218).
    // FIPS endpoints exist only in the US and Canada (Bottlerocket's settings reference, `settings.aws.config`;
    // bottlerocket, issue 4363). VPC interface endpoints don't resolve the names of FIPS endpoints (bottlerocket,
    // issues 4372 and 4382).
    if body["amiType"].as_str().is_some_and(|ami| ami.ends_with("_FIPS")) && !calls_plain_endpoints(&data) {
        if !["us-", "ca-"].iter().any(|place| w.region.starts_with(place)) {
            return unjoined("Timed out retrieving private DNS name from EC2: the region has no FIPS endpoints");
        }
        if !texts(body, "subnets").iter().all(|subnet| w.here.ec2.has_way_out(subnet)) {
            return unjoined("Timed out retrieving private DNS name from EC2: no way to its FIPS endpoint");
        }
    }
    if cluster.bound.get(&role.arn).is_some_and(|id| *id != role.id) {
        return unjoined("the access entry of the node role was made for an earlier role of the same name");
    }
    let may = |role: &Role, action: &str, resource: &str, context: &[(&str, &str)]| {
        enforce::may(&*w.iam, role, action, resource, context)
    };
    if !may(&role, "ec2:DescribeInstances", "*", &[]) {
        return unjoined("the node role has no AmazonEKSWorkerNodePolicy");
    }
    // The images of EKS's own pods are in an AWS account whose registry admits everybody. The node's own policies must
    // allow the pull, too.
    let registry = registry(w.region);
    let image = format!("arn:{partition}:ecr:{}:{registry}:repository/eks/kube-proxy", w.region);
    let owner = [("aws:resourceaccount", registry)];
    if !may(&role, "ecr:GetAuthorizationToken", "*", &[]) || !may(&role, "ecr:BatchGetImage", &image, &owner) {
        return unjoined("the node role has no AmazonEC2ContainerRegistryPullOnly");
    }
    let addon = cluster.addons.get("vpc-cni");
    if addon.is_none() && !cluster.self_managed {
        return unjoined("the cluster has no network plugin (vpc-cni)");
    }
    let associated = cluster.associations.values();
    let mut associated =
        associated.filter(|item| item.body["namespace"] == "kube-system" && item.body["serviceAccount"] == "aws-node");
    let own = addon.and_then(|addon| addon.body["serviceAccountRoleArn"].as_str().map(str::to_owned));
    let own = own.or_else(|| associated.next().and_then(|item| item.body["roleArn"].as_str().map(str::to_owned)));
    let cni = own.map_or_else(|| Some(role.clone()), |arn| w.role(&arn));
    let vpc = format!("arn:{partition}:ec2:{}:{}:vpc/{}", w.region, w.account, cluster.vpc());
    let interface = format!("arn:{partition}:ec2:{}:{}:network-interface/eni-1", w.region, w.account);
    let addresses = |role: Role| may(&role, "ec2:AssignPrivateIpAddresses", &interface, &[("ec2:vpc", &vpc)]);
    if !cni.is_some_and(addresses) {
        return unjoined("the network plugin (aws-node) has no role with AmazonEKS_CNI_Policy, nor has the node");
    }
    None
}

/// Whether the user data tells a Bottlerocket node not to use AWS's FIPS endpoints.
fn calls_plain_endpoints(data: &Value) -> bool {
    let decoded = |text: &str| STANDARD.decode(text.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let settings = data["userData"].as_str().and_then(decoded).and_then(|text| text.parse::<toml::Table>().ok());
    let config = settings.as_ref().and_then(|table| table.get("settings")?.get("aws")?.get("config")?.as_str());
    let lines = config.and_then(decoded).unwrap_or_default();
    lines.lines().any(|line| line.split_whitespace().collect::<String>() == "use_fips_endpoint=false")
}

/// The account whose registry holds the images of EKS's add-ons in a region (EKS user guide, "View Amazon container
/// image registries for Amazon EKS add-ons").
fn registry(region: &str) -> &'static str {
    match region {
        "af-south-1" => "877085696533",
        "ap-east-1" => "800184023465",
        "ap-east-2" => "533267051163",
        "ap-south-2" => "900889452093",
        "ap-southeast-3" => "296578399912",
        "ap-southeast-4" => "491585149902",
        "ap-southeast-5" => "151610086707",
        "ap-southeast-6" => "333609536671",
        "ap-southeast-7" => "121268973566",
        "ca-west-1" => "761377655185",
        "cn-north-1" => "918309763551",
        "cn-northwest-1" => "961992271922",
        "eu-central-2" => "900612956339",
        "eu-south-1" => "590381155156",
        "eu-south-2" => "455263428931",
        "il-central-1" => "066635153087",
        "me-central-1" => "759879836304",
        "me-south-1" => "558608220178",
        "mx-central-1" => "730335286997",
        "us-gov-east-1" => "151742754352",
        "us-gov-west-1" => "013241004608",
        _ => "602401143452",
    }
}

/// EC2's error text if the nodes of a group need more vCPUs than the account's quota (klotho #311).
fn too_many_vcpus(w: &World<'_>, cluster: &Cluster, body: &Value) -> Option<String> {
    let spot = body["capacityType"] == "SPOT";
    let limit = quotas::limit(w.quotas, if spot { "L-34B43A08" } else { "L-1216C47A" });
    let taken = |body: &Value| {
        let first = texts(body, "instanceTypes").into_iter().next();
        let standard = first.and_then(|name| InstanceType::named(&name)).filter(InstanceType::is_standard);
        standard.map_or(0, |one| one.vcpus() * body["scalingConfig"]["desiredSize"].as_u64().unwrap_or_default())
    };
    let groups = w.here.eks.clusters.values().chain([cluster]).flat_map(|cluster| cluster.nodegroups.values());
    let running = groups.filter(|group| {
        let here =
            group.body["nodegroupArn"] != body["nodegroupArn"] && group.body["capacityType"] == body["capacityType"];
        here && ["ACTIVE", "UPDATING", "DEGRADED"].contains(&group.status())
    });
    let sum = running.map(|group| taken(&group.body)).sum::<u64>() + taken(body);
    if taken(body) == 0 || sum as f64 <= limit {
        return None;
    }
    Some(match spot {
        true => "Could not launch Spot Instances. MaxSpotInstanceCountExceeded - Max spot instance count exceeded. Launching EC2 instance failed.".to_owned(),
        false => format!(
            "Could not launch On-Demand Instances. VcpuLimitExceeded - You have requested more vCPU capacity than your current vCPU limit of {limit} allows for the instance bucket that the specified instance type belongs to. Please visit http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit. Launching EC2 instance failed."
        ),
    })
}
