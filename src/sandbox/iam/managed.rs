//! Documents of AWS's managed policies, reduced to the parts that the sandbox evaluates (AWS Managed Policy Reference
//! Guide).

use serde_json::{Value, json};

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
