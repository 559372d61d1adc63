use std::collections::BTreeMap;

use futures::future::join_all;

use crate::aws::Aws;
use crate::aws::error::{failed, is_not_found};
use crate::cli::session::Session;
use crate::engine::error::{Class, Error, Result};
use crate::engine::plan::{Action, Plan};
use crate::kinds::aws::{access_entry, iam_role};
use crate::ui::Ui;

/// Asks IAM whether the roles that get access to clusters exist: EKS refuses one that doesn't, and only once the
/// cluster is made. Who may not ask goes on.
pub async fn check(session: &Session, ui: &Ui, plan: &Plan) -> Result<()> {
    let aws = &session.aws;
    let roles = roles(aws, plan);
    let asked = roles.iter().map(|(arn, address)| async move { (arn, address, wrong(aws, arn).await) });
    let mut lines = Vec::new();
    for (arn, address, wrong) in join_all(asked).await {
        match wrong {
            Ok(None) => {}
            Ok(Some(wrong)) => lines.push(format!("\n  {arn}: {wrong} ({address})")),
            Err(error) => ui.note(&format!("Whether {arn} exists shows when it is used: {error}")),
        }
    }
    if lines.is_empty() {
        return Ok(());
    }
    let message = format!("this plan gives access to who doesn't exist; nothing was changed:{}", lines.concat());
    Err(Error::new(Class::Input, message).help(
        "make the role, or mend spec.access; a role that has a path is named with it; --no-preflight begins all the \
         same",
    ))
}

/// The account's own roles that get access, but for those that `plan` makes, with the first address that names them.
fn roles<'p>(aws: &Aws, plan: &'p Plan) -> BTreeMap<&'p str, &'p str> {
    let ours = format!("arn:{}:iam::{}:role/", aws.scope.partition, aws.scope.account);
    let made = |kind| plan.steps.iter().filter(move |s| s.kind == kind && s.action == Action::Create);
    let made_here = |arn: &str| {
        let names = made(iam_role::NAME).filter_map(|s| s.state.as_ref()?["name"].as_str());
        names.into_iter().any(|name| name_in(arn) == name)
    };
    let mut roles = BTreeMap::new();
    for step in made(access_entry::NAME) {
        let principal = step.state.as_ref().and_then(|state| state["principal"].as_str()).unwrap_or_default();
        if principal.starts_with(&ours) && !made_here(principal) {
            roles.entry(principal).or_insert(step.address.as_str());
        }
    }
    roles
}

fn name_in(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or_default()
}

/// What is wrong with a role's ARN.
async fn wrong(aws: &Aws, arn: &str) -> Result<Option<String>> {
    match aws.iam.get_role().role_name(name_in(arn)).send().await.map_err(failed("iam:GetRole")) {
        Ok(answer) => {
            let is = answer.role.map(|role| role.arn).unwrap_or_default();
            Ok((is != arn).then(|| format!("the role of this name is {is}")))
        }
        Err(error) if is_not_found(&error) => Ok(Some("there is no such role".to_owned())),
        Err(error) => Err(error),
    }
}
