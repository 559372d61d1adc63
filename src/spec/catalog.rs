//! Closed lists of values from AWS and Kubernetes. The spec is checked against them.

use jiff::civil::{Date, date};

use super::region::{REGIONS, partition_of};

/// The accounts whose registries hold the images of EKS's own pods, for regions that don't use the usual account.
/// Source: EKS User Guide, "View Amazon container image registries for Amazon EKS add-ons". For the newest regions:
/// Amazon GuardDuty's list of repositories for its EKS agent.
const EKS_REGISTRIES: &[(&str, &str)] = &[
    ("af-south-1", "877085696533"),
    ("ap-east-1", "800184023465"),
    ("ap-east-2", "533267051163"),
    ("ap-south-2", "900889452093"),
    ("ap-southeast-3", "296578399912"),
    ("ap-southeast-4", "491585149902"),
    ("ap-southeast-5", "151610086707"),
    ("ap-southeast-6", "333609536671"),
    ("ap-southeast-7", "121268973566"),
    ("ca-west-1", "761377655185"),
    ("cn-north-1", "918309763551"),
    ("cn-northwest-1", "961992271922"),
    ("eu-central-2", "900612956339"),
    ("eu-south-1", "590381155156"),
    ("eu-south-2", "455263428931"),
    ("il-central-1", "066635153087"),
    ("me-central-1", "759879836304"),
    ("me-south-1", "558608220178"),
    ("mx-central-1", "730335286997"),
    ("us-gov-east-1", "151742754352"),
    ("us-gov-west-1", "013241004608"),
];

/// The account of EKS's own images in a region. `None` if it isn't known.
pub fn eks_registry(region: &str) -> Option<&'static str> {
    let own = EKS_REGISTRIES.iter().find(|(known, _)| *known == region).map(|(_, account)| *account);
    own.or_else(|| (REGIONS.contains(&region) && partition_of(region) == "aws").then_some("602401143452"))
}

/// CloudWatch Logs' retention periods, in days (PutRetentionPolicy).
pub const LOG_RETENTION_DAYS: &[u32] =
    &[1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653];

/// Services whose VPC endpoints a tenancy may ask for, without the prefix `com.amazonaws.<region>.`.
pub const ENDPOINT_SERVICES: &[&str] = &[
    "acm-pca",
    "application-autoscaling",
    "athena",
    "autoscaling",
    "backup",
    "bedrock",
    "bedrock-runtime",
    "cloudformation",
    "cloudtrail",
    "codeartifact.api",
    "codeartifact.repositories",
    "cognito-idp",
    "config",
    "dynamodb",
    "ebs",
    "ec2",
    "ec2messages",
    "ecr.api",
    "ecr.dkr",
    "ecs",
    "eks",
    "eks-auth",
    "elasticache",
    "elasticfilesystem",
    "elasticloadbalancing",
    "email-smtp",
    "events",
    "execute-api",
    "fis",
    "fsx",
    "glue",
    "guardduty-data",
    "inspector2",
    "kafka",
    "kinesis-firehose",
    "kinesis-streams",
    "kms",
    "lambda",
    "logs",
    "mq",
    "monitoring",
    "rds",
    "rds-data",
    "redshift",
    "redshift-data",
    "s3",
    "sagemaker.api",
    "sagemaker.runtime",
    "secretsmanager",
    "securityhub",
    "servicecatalog",
    "servicediscovery",
    "sns",
    "sqs",
    "ssm",
    "ssmmessages",
    "states",
    "sts",
    "sync-states",
    "synthetics",
    "textract",
    "transfer",
    "xray",
];

/// Linux capabilities, without `CAP_` (capabilities(7)), and Kubernetes' `ALL`. The list also holds capabilities that
/// no tenant may have, so that their error gives the right reason.
pub const CAPABILITIES: &[&str] = &[
    "ALL",
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// A Kubernetes minor version on EKS. Each date is the last day of a support period. `None` means that AWS had
/// published no date at the time of this release (Amazon EKS Kubernetes release calendar).
#[derive(Clone, Copy, Debug)]
pub struct Release {
    pub minor: u16,
    pub standard_until: Option<Date>,
    pub extended_until: Option<Date>,
}

/// Minor versions that EKS offers, oldest first. EKS creates no cluster of an older version.
pub const KUBERNETES: &[Release] = &[
    Release { minor: 31, standard_until: Some(date(2025, 11, 26)), extended_until: Some(date(2026, 11, 26)) },
    Release { minor: 32, standard_until: Some(date(2026, 3, 23)), extended_until: Some(date(2027, 3, 23)) },
    Release { minor: 33, standard_until: Some(date(2026, 7, 29)), extended_until: Some(date(2027, 7, 29)) },
    Release { minor: 34, standard_until: Some(date(2026, 12, 2)), extended_until: Some(date(2027, 12, 2)) },
    Release { minor: 35, standard_until: Some(date(2027, 3, 27)), extended_until: Some(date(2028, 3, 27)) },
    Release { minor: 36, standard_until: Some(date(2027, 8, 2)), extended_until: Some(date(2028, 8, 2)) },
    Release { minor: 37, standard_until: None, extended_until: None },
];
