//! The launch template version of a group's nodes. Versions that differ in tags only count as the same.

use aws_sdk_eks::types::{LaunchTemplateSpecification, Nodegroup};

use super::facts::State;
use crate::aws::Aws;
use crate::aws::tags::Tags;
use crate::engine::error::Result;
use crate::kinds::aws::launch_template;

/// The launch template version of a group's nodes.
pub(super) struct Started {
    /// The version, or the default version if that differs in tags only.
    pub version: String,
    /// The tags in that version.
    pub tags: Tags,
}

pub(super) async fn template_of(aws: &Aws, group: &Nodegroup, templates: &[launch_template::Ours]) -> Result<Started> {
    let used = group.launch_template();
    let version = used.and_then(|t| t.version()).unwrap_or_default().to_owned();
    let Some(ours) = used.and_then(|t| t.id()).and_then(|id| templates.iter().find(|t| t.id() == id)) else {
        return Ok(Started { version, tags: Tags::new() });
    };
    let (current, data) = ours.current();
    if version == current {
        return Ok(Started { version, tags: launch_template::instance_tags(data) });
    }
    let (versions, _) = launch_template::versions(aws, ours.id(), [version.as_str()].into()).await?;
    Ok(match versions.get(&version) {
        Some(used) => Started {
            tags: launch_template::instance_tags(used),
            version: if launch_template::alike(used, data) { current } else { version },
        },
        None => Started { version, tags: Tags::new() },
    })
}

/// The template version that the group's nodes must be updated to, or `None`. Different tags alone need no
/// update. If the nodes are replaced for another reason (`rolls`), they get the newest tags.
pub(super) async fn next_version(aws: &Aws, now: &State, to: &State, rolls: bool) -> Result<Option<String>> {
    if now.template_version == to.template_version && !rolls {
        return Ok(None);
    }
    let numbers = [now.template_version.as_str(), to.template_version.as_str()];
    let numbers = numbers.into_iter().filter(|number| !number.is_empty()).collect();
    let (versions, current) = launch_template::versions(aws, &to.template, numbers).await?;
    let same = |a: &str, b: &str| match (versions.get(a), versions.get(b)) {
        (Some(a), Some(b)) => launch_template::alike(a, b),
        _ => a == b,
    };
    if same(&now.template_version, &to.template_version) && !rolls {
        return Ok(None);
    }
    let newest = current.filter(|current| same(current, &to.template_version));
    Ok(newest.or_else(|| Some(to.template_version.clone())).filter(|version| *version != now.template_version))
}

/// The default version of a group's template, if it differs from the wanted version in tags only.
pub(super) async fn newest(aws: &Aws, state: &State) -> Result<String> {
    let none = State { template_version: String::new(), ..state.clone() };
    Ok(next_version(aws, &none, state, true).await?.unwrap_or_else(|| state.template_version.clone()))
}

pub(super) fn template(state: &State, version: String) -> LaunchTemplateSpecification {
    LaunchTemplateSpecification::builder().id(&state.template).version(version).build()
}
