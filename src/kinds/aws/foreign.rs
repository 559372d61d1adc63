//! Resources of others that have a name that the spec wants: their description in a plan, and the check after a
//! creation that failed because the name is taken.

use crate::aws::Aws;
use crate::aws::tags::{self, Tags};
use crate::engine::address::Address;
use crate::engine::error::{Class, Error, Result};
use crate::engine::kind::{Foreign, New};

/// The format of tags in commands of the AWS CLI.
#[derive(Clone, Copy)]
pub(super) enum TagStyle {
    /// `--tags k=v,k=v` (EKS, CloudWatch Logs).
    Map,
    /// `--tags Key=k,Value=v …` (IAM, EC2).
    Key,
    /// `--tags TagKey=k,TagValue=v …` (KMS).
    TagKey,
}

/// A resource at `address` without our tags. `what` names the resource. `command` followed by ` --tags …` adopts it.
pub(super) fn foreign(
    aws: &Aws,
    address: &Address,
    id: &str,
    what: &str,
    has: &Tags,
    command: &str,
    style: TagStyle,
) -> Foreign {
    if let Some((other, _)) = aws.owned(has) {
        let message = format!(
            "{what} belongs to this tenancy at the address `{other}`; two resources can't have the same name, so this one waits until the other one is deleted"
        );
        return Foreign { address: address.clone(), id: id.to_owned(), message };
    }
    let message = match (has.get(tags::TENANCY), has.get(tags::REGION)) {
        (Some(tenancy), region) if *tenancy != aws.tenancy || region != Some(&aws.scope.region) => format!(
            "{what} exists and belongs to tenancy `{tenancy}` in region `{}`; choose another name for one of the two tenancies",
            region.map_or("?", String::as_str),
        ),
        _ => format!(
            "{what} exists without the tags `{}`, `{}` and `{}` of this tenancy, so ringfence doesn't change it; to adopt it, run `{command} --tags {}`",
            tags::TENANCY,
            tags::REGION,
            tags::ADDRESS,
            arguments(aws, address, style),
        ),
    };
    Foreign { address: address.clone(), id: id.to_owned(), message }
}

/// Called after the creation of `new` failed because its name is taken. Succeeds if the resource with the name is
/// `new` itself, created by an earlier attempt. `has` are the tags of the resource with the name, `None` if it
/// doesn't exist (any more).
pub(super) fn claim(aws: &Aws, new: &New, has: Option<&Tags>, taken: Error) -> Result<()> {
    let Some(has) = has else {
        return Err(taken);
    };
    match aws.owned(has) {
        Some((address, generation)) if address == new.address && generation == new.generation => Ok(()),
        Some((address, generation)) => {
            Err(taken.help(format!("the name belongs to `{address}`, generation {generation}, of this tenancy")))
        }
        None => Err(Error { class: Class::Exists, ..taken }
            .help("the resource with this name lacks this tenancy's tags; `ringfence plan` shows the resource and how to adopt it")),
    }
}

fn arguments(aws: &Aws, address: &Address, style: TagStyle) -> String {
    let tags = tags::with_generation(&tags::ownership(&aws.tenancy, &aws.scope.region, address), 1);
    let (separator, form): (&str, fn(&str, &str) -> String) = match style {
        TagStyle::Map => (",", |k, v| format!("{k}={v}")),
        TagStyle::Key => (" ", |k, v| format!("Key={k},Value={v}")),
        TagStyle::TagKey => (" ", |k, v| format!("TagKey={k},TagValue={v}")),
    };
    tags.iter().map(|(k, v)| form(k, v)).collect::<Vec<_>>().join(separator)
}
