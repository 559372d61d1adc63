//! Amazon Resource Names as far as a spec holds them.

use serde::Serialize;

use super::region::partition_of;
use crate::arn::{Arn, name_in, role_of};

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

/// An IAM principal of `access.admins` or `access.operators`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Principal {
    /// The role's or user's IAM ARN. For a session (`assumed-role`) it is the role's ARN as
    /// far as the session's tells it: without the role's path, which only IAM knows.
    pub arn: String,
    /// Written as an `assumed-role` ARN: look the role up by its name before use.
    pub session: bool,
}

impl Principal {
    /// The role's or user's name, without path.
    pub fn name(&self) -> &str {
        name_in(&self.arn)
    }
}
