//! Amazon Resource Names as far as a spec holds them.

use serde::Serialize;

use super::region::partition_of;
use crate::arn::{Arn, name_in, role_of};

/// Twelve digits.
pub fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

/// A mistake in an ARN: the message and the help.
pub type Problem = (String, String);

/// An ARN of IAM or STS. `region` is the tenancy's: it decides the partition, and `None` accepts any partition. ARNs of
/// these services hold no region themselves.
fn parse<'a>(text: &'a str, region: Option<&str>, like: &str) -> Result<Arn<'a>, Problem> {
    let example = format!("the form is `{like}`");
    let Some(arn) = Arn::parse(text) else {
        return Err(("this is not an ARN".to_owned(), example));
    };
    if text.contains(char::is_whitespace) || text.contains(['*', '?']) {
        return Err(("the ARN holds a space or a wildcard, so it doesn't name one resource".to_owned(), example));
    }
    if let Some(region) = region.filter(|region| partition_of(region) != arn.partition) {
        let message = format!(
            "the ARN is of the partition `{}`, but {region} is in the partition `{}`",
            arn.partition,
            partition_of(region)
        );
        return Err((message, example));
    }
    if !matches!(arn.service, "iam" | "sts") || !arn.region.is_empty() {
        return Err(("this is not an ARN of IAM".to_owned(), example));
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
            format!("`{}` is not an account id: an account id has 12 digits", arn.account),
            format!("the form is `{like}`"),
        ));
    }
    let (kind, name) = arn.typed();
    match (arn.service, kind) {
        // EKS user guide, "Create access entries"; hashicorp/terraform-provider-aws issue 36447.
        ("iam", "role") if name.starts_with("aws-service-role/") => Err((
            "a service-linked role can't have access to a cluster: only an AWS service can assume it".to_owned(),
            format!("name the role that people or programs assume: `{like}`"),
        )),
        ("iam", "role" | "user") if is_path_and_name(name) => Ok(Principal { arn: text.to_owned(), session: false }),
        ("sts", "assumed-role") => match name.split_once('/') {
            Some((role, session)) if is_name(role) && !session.is_empty() && !session.contains('/') => {
                Ok(Principal { arn: role_of(text), session: true })
            }
            _ => {
                let like = format!("arn:{partition}:sts::{}:assumed-role/ROLE/SESSION", arn.account);
                Err((
                    "the ARN of the session has no role name or no session name".to_owned(),
                    format!("the form is `{like}`"),
                ))
            }
        },
        ("iam", "root") => {
            Err(("the account's root user can't have access to a cluster".to_owned(), format!("name a role: `{like}`")))
        }
        ("iam", "group") => {
            Err(("an IAM group can't have access to a cluster".to_owned(), format!("name a role: `{like}`")))
        }
        _ => Err(("the ARN is neither of a role nor of a user".to_owned(), format!("the form is `{like}`"))),
    }
}

/// Accepts the ARN of a managed policy, either of AWS or of the tenancy's account. If `account_id` is `None`, any
/// account is accepted.
pub fn policy(text: &str, region: Option<&str>, account_id: Option<&str>) -> Result<(), Problem> {
    let partition = region.map_or("aws", partition_of);
    let like = format!("arn:{partition}:iam::{}:policy/NAME", account_id.unwrap_or("123456789012"));
    let arn = parse(text, region, &like)?;
    let form = format!("the form is `{like}`, or `arn:{partition}:iam::aws:policy/NAME` for a policy of AWS");
    let name = arn.resource.strip_prefix("policy/").unwrap_or_default();
    if arn.service != "iam" || !is_path_and_name(name) {
        return Err(("this is not the ARN of a managed policy".to_owned(), form));
    }
    if arn.account == "aws" {
        return Ok(());
    }
    if !is_account(arn.account) {
        return Err((format!("`{}` is not an account id: an account id has 12 digits", arn.account), form));
    }
    match account_id {
        Some(own) if own != arn.account => {
            Err((format!("the policy is in account {}, but the tenancy is in account {own}", arn.account), form))
        }
        _ => Ok(()),
    }
}

fn is_path_and_name(text: &str) -> bool {
    text.rsplit('/').next().is_some_and(is_name) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// The characters and the length that IAM allows in a name (CreateRole, CreatePolicy).
fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b);
    !text.is_empty() && text.len() <= 128 && text.bytes().all(allowed)
}

/// An IAM principal of `access.admins` or `access.operators`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Principal {
    /// The IAM ARN of the role or user. For a session (`assumed-role`) it is the role's ARN without the role's path:
    /// the session's ARN doesn't hold the path.
    pub arn: String,
    /// True if the spec holds an `assumed-role` ARN. The role must be looked up by its name before use.
    pub session: bool,
}

impl Principal {
    /// The role's or user's name, without path.
    pub fn name(&self) -> &str {
        name_in(&self.arn)
    }
}
