//! AWS's managed policies: their names, and the documents of some, reduced to the parts that the sandbox evaluates (AWS
//! Managed Policy Reference Guide).

use serde_json::{Value, json};

/// AWS's managed policies: path and names.
const MANAGED: &[(&str, &str)] = &[
    (
        "/",
        "AWSXRayDaemonWriteAccess AdministratorAccess AmazonDynamoDBFullAccess AmazonDynamoDBReadOnlyAccess \
         AmazonEC2ContainerRegistryFullAccess AmazonEC2ContainerRegistryPowerUser AmazonEC2ContainerRegistryPullOnly \
         AmazonEC2ContainerRegistryReadOnly AmazonEC2FullAccess AmazonEC2ReadOnlyAccess AmazonEKSBlockStoragePolicy \
         AmazonEKSClusterPolicy AmazonEKSComputePolicy AmazonEKSFargatePodExecutionRolePolicy \
         AmazonEKSLoadBalancingPolicy AmazonEKSNetworkingPolicy AmazonEKSServicePolicy AmazonEKSVPCResourceController \
         AmazonEKSWorkerNodeMinimalPolicy AmazonEKSWorkerNodePolicy AmazonEKS_CNI_Policy \
         AmazonPrometheusRemoteWriteAccess AmazonRDSReadOnlyAccess AmazonRoute53FullAccess AmazonS3FullAccess \
         AmazonS3ReadOnlyAccess AmazonSNSFullAccess AmazonSNSReadOnlyAccess AmazonSQSFullAccess \
         AmazonSQSReadOnlyAccess AmazonSSMManagedInstanceCore AmazonSSMReadOnlyAccess CloudWatchAgentServerPolicy \
         CloudWatchLogsFullAccess CloudWatchReadOnlyAccess ElasticLoadBalancingFullAccess IAMFullAccess \
         IAMReadOnlyAccess PowerUserAccess ReadOnlyAccess SecretsManagerReadWrite SecurityAudit",
    ),
    (
        "/service-role/",
        "AWSLambdaBasicExecutionRole AmazonEBSCSIDriverPolicy AmazonEC2RoleforSSM AmazonEFSCSIDriverPolicy",
    ),
    ("/job-function/", "SystemAdministrator ViewOnlyAccess"),
];

/// ARN, path and name of each policy.
pub fn managed(partition: &str) -> impl Iterator<Item = (String, &'static str, &'static str)> {
    MANAGED.iter().flat_map(move |(path, names)| {
        names.split(' ').map(move |name| (format!("arn:{partition}:iam::aws:policy{path}{name}"), *path, name))
    })
}

/// The document of an AWS managed policy, by name. A policy that isn't listed grants nothing.
pub fn document(name: &str) -> Value {
    const PULL: [&str; 4] = [
        "ecr:BatchCheckLayerAvailability",
        "ecr:BatchGetImage",
        "ecr:GetAuthorizationToken",
        "ecr:GetDownloadUrlForLayer",
    ];
    let everywhere = |actions: Value| json!([{"Effect": "Allow", "Action": actions, "Resource": "*"}]);
    let statements = match name {
        "AdministratorAccess" => everywhere(json!("*")),
        "AmazonEC2ContainerRegistryPullOnly"
        | "AmazonEC2ContainerRegistryPowerUser"
        | "AmazonEC2ContainerRegistryReadOnly"
        | "AmazonEKSFargatePodExecutionRolePolicy" => everywhere(json!(PULL)),
        "AmazonEKSWorkerNodePolicy" => everywhere(json!([
            "ec2:DescribeInstanceTypes",
            "ec2:DescribeInstances",
            "ec2:DescribeRouteTables",
            "ec2:DescribeSecurityGroups",
            "ec2:DescribeSubnets",
            "ec2:DescribeVolumes",
            "ec2:DescribeVolumesModifications",
            "ec2:DescribeVpcs",
            "eks:DescribeCluster",
            "eks-auth:AssumeRoleForPodIdentity",
        ])),
        "AmazonEKSWorkerNodeMinimalPolicy" => {
            everywhere(json!(["ec2:DescribeInstances", "eks-auth:AssumeRoleForPodIdentity"]))
        }
        "AmazonEKS_CNI_Policy" => json!([
            {"Effect": "Allow", "Resource": "*", "Action": [
                "ec2:AssignPrivateIpAddresses", "ec2:AttachNetworkInterface", "ec2:CreateNetworkInterface",
                "ec2:DeleteNetworkInterface", "ec2:DescribeInstanceTypes", "ec2:DescribeInstances",
                "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets", "ec2:DescribeTags", "ec2:DetachNetworkInterface",
                "ec2:ModifyNetworkInterfaceAttribute", "ec2:UnassignPrivateIpAddresses",
            ]},
            {"Effect": "Allow", "Resource": "arn:aws:ec2:*:*:network-interface/*", "Action": "ec2:CreateTags"},
        ]),
        _ => json!([]),
    };
    json!({"Statement": statements})
}
