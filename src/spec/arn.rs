//! Regions, and Amazon Resource Names as far as a spec holds them.

use super::model::Principal;
use crate::arn::{Arn, role_of};

/// The regions of all partitions at the time of this release (botocore 1.44.8, `partitions.json`).
pub const REGIONS: &[&str] = &[
    "af-south-1",
    "ap-east-1",
    "ap-east-2",
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-northeast-3",
    "ap-south-1",
    "ap-south-2",
    "ap-southeast-1",
    "ap-southeast-2",
    "ap-southeast-3",
    "ap-southeast-4",
    "ap-southeast-5",
    "ap-southeast-6",
    "ap-southeast-7",
    "ca-central-1",
    "ca-west-1",
    "cn-north-1",
    "cn-northwest-1",
    "eu-central-1",
    "eu-central-2",
    "eu-isoe-west-1",
    "eu-north-1",
    "eu-south-1",
    "eu-south-2",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "eusc-de-east-1",
    "il-central-1",
    "me-central-1",
    "me-south-1",
    "me-west-1",
    "mx-central-1",
    "sa-east-1",
    "sa-west-1",
    "us-east-1",
    "us-east-2",
    "us-gov-east-1",
    "us-gov-west-1",
    "us-iso-east-1",
    "us-iso-west-1",
    "us-isob-east-1",
    "us-isob-west-1",
    "us-isof-east-1",
    "us-isof-south-1",
    "us-west-1",
    "us-west-2",
];

/// The partition that a region belongs to.
pub fn partition_of(region: &str) -> &'static str {
    match region {
        r if r.starts_with("cn-") => "aws-cn",
        r if r.starts_with("us-gov-") => "aws-us-gov",
        r if r.starts_with("us-iso-") => "aws-iso",
        r if r.starts_with("us-isob-") => "aws-iso-b",
        r if r.starts_with("eu-isoe-") => "aws-iso-e",
        r if r.starts_with("us-isof-") => "aws-iso-f",
        r if r.starts_with("eusc-") => "aws-eusc",
        _ => "aws",
    }
}

/// Whether EKS runs pods on Fargate in the region's partition (EKS User Guide, "Simplify compute management with AWS
/// Fargate": not in AWS GovCloud (US)). The isolated partitions' documents aren't public; there AWS says it itself.
pub fn has_fargate(region: &str) -> bool {
    partition_of(region) != "aws-us-gov"
}

/// `LETTERS-WORDS-NUMBER`, such as `us-gov-west-1`.
pub fn is_region(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let word = |s: &&str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_lowercase());
    match parts.as_slice() {
        [first, middle @ .., number] => {
            (2..=4).contains(&first.len())
                && word(first)
                && !middle.is_empty()
                && middle.iter().all(word)
                && !number.is_empty()
                && number.bytes().all(|b| b.is_ascii_digit())
        }
        _ => false,
    }
}

/// Twelve digits.
pub fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

/// What is wrong with an ARN, and what would be right.
pub type Problem = (String, String);

/// An ARN of IAM or STS, which have no region. Without a region, any partition will do.
fn parse<'a>(text: &'a str, region: Option<&str>, like: &str) -> Result<Arn<'a>, Problem> {
    let example = format!("it has the form `{like}`");
    let Some(arn) = Arn::parse(text) else {
        return Err(("this is no ARN".to_owned(), example));
    };
    if text.contains(char::is_whitespace) || text.contains(['*', '?']) {
        return Err(("this is no ARN of one thing".to_owned(), example));
    }
    if let Some(region) = region.filter(|region| partition_of(region) != arn.partition) {
        let message = format!("the partition is `{}`, and {region} is in `{}`", arn.partition, partition_of(region));
        return Err((message, example));
    }
    if !matches!(arn.service, "iam" | "sts") || !arn.region.is_empty() {
        return Err(("this is no ARN of IAM".to_owned(), example));
    }
    Ok(arn)
}

/// An IAM role, user or session that can have an EKS access entry in the region's partition.
pub fn principal(text: &str, region: Option<&str>) -> Result<Principal, Problem> {
    let partition = region.map_or("aws", partition_of);
    let like = format!("arn:{partition}:iam::123456789012:role/NAME");
    let arn = parse(text, region, &like)?;
    if !is_account(arn.account) {
        return Err((
            format!("`{}` is no account: accounts have 12 digits", arn.account),
            format!("it has the form `{like}`"),
        ));
    }
    let (kind, name) = arn.typed();
    match (arn.service, kind) {
        // EKS user guide, "Create access entries"; hashicorp/terraform-provider-aws issue 36447.
        ("iam", "role") if name.starts_with("aws-service-role/") => Err((
            "a service-linked role can't have access to a cluster: it is AWS's own".to_owned(),
            format!("name the role that people or programs assume: `{like}`"),
        )),
        ("iam", "role" | "user") if is_path_and_name(name) => Ok(Principal { arn: text.to_owned(), session: false }),
        ("sts", "assumed-role") => match name.split_once('/') {
            Some((role, session)) if is_name(role) && !session.is_empty() && !session.contains('/') => {
                Ok(Principal { arn: role_of(text), session: true })
            }
            _ => {
                let like = format!("arn:{partition}:sts::{}:assumed-role/ROLE/SESSION", arn.account);
                Err(("this session has no role or no name".to_owned(), format!("it has the form `{like}`")))
            }
        },
        ("iam", "root") => {
            Err(("the account's root can't have access to a cluster".to_owned(), format!("name a role: `{like}`")))
        }
        ("iam", "group") => {
            Err(("a group can't have access to a cluster".to_owned(), format!("name a role: `{like}`")))
        }
        _ => Err(("this is neither a role nor a user".to_owned(), format!("it has the form `{like}`"))),
    }
}

/// A managed policy: AWS's own, or one of the tenancy's account where that is known.
pub fn policy(text: &str, region: Option<&str>, account_id: Option<&str>) -> Result<(), Problem> {
    let partition = region.map_or("aws", partition_of);
    let like = format!("arn:{partition}:iam::{}:policy/NAME", account_id.unwrap_or("123456789012"));
    let arn = parse(text, region, &like)?;
    let form = format!("it has the form `{like}`, or `arn:{partition}:iam::aws:policy/NAME` for AWS's own");
    let name = arn.resource.strip_prefix("policy/").unwrap_or_default();
    if arn.service != "iam" || !is_path_and_name(name) {
        return Err(("this is no managed policy".to_owned(), form));
    }
    if arn.account == "aws" {
        return Ok(());
    }
    if !is_account(arn.account) {
        return Err((format!("`{}` is no account: accounts have 12 digits", arn.account), form));
    }
    match account_id {
        Some(own) if own != arn.account => {
            Err((format!("the policy is in account {}, and the tenancy in {own}", arn.account), form))
        }
        _ => Ok(()),
    }
}

fn is_path_and_name(text: &str) -> bool {
    text.rsplit('/').next().is_some_and(is_name) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// IAM's characters for names (CreateRole, CreatePolicy).
fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b);
    !text.is_empty() && text.len() <= 128 && text.bytes().all(allowed)
}
