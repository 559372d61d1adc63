use std::collections::BTreeMap;

use futures::future::join_all;

use crate::arn::name_in;
use crate::aws::Aws;
use crate::aws::error::{failed, is_not_found};
use crate::engine::error::{Class, Error, Result};
use crate::engine::plan::{Action, Plan, Step};
use crate::kinds::aws::{access_entry, iam_role};
use crate::run::{Host, Session};
use crate::spec::Spec;

/// Asks IAM whether the principals that get access to clusters exist, and the policies that roles get. EKS refuses an
/// access entry for a missing role, but only after the cluster is created. The check passes if the caller may not
/// ask.
pub async fn check(session: &Session, host: &dyn Host, plan: &Plan) -> Result<()> {
    let aws = &session.aws;
    let named = roles(aws, plan).into_iter().chain(policies(&session.spec, plan));
    let asked = named.map(|(arn, address)| async move { (arn, address, wrong(aws, arn).await) });
    let mut lines = Vec::new();
    for (arn, address, wrong) in join_all(asked).await {
        match wrong {
            Ok(None) => {}
            Ok(Some(wrong)) => lines.push(format!("\n  {arn}: {wrong} ({address})")),
            Err(error) => host.note(&format!("It could not be checked whether {arn} exists: {error}")),
        }
    }
    if lines.is_empty() {
        return Ok(());
    }
    let message = format!("the spec names roles or policies that don't exist; nothing was changed:{}", lines.concat());
    Err(Error::new(Class::Input, message)
        .help("create them, or correct the spec (an ARN includes the path); --no-preflight skips this check"))
}

/// The policies that the spec attaches to roles of `plan`, with the first address that uses each.
fn policies<'p>(spec: &'p Spec, plan: &'p Plan) -> BTreeMap<&'p str, &'p str> {
    let accounts = spec.tenants.iter().flat_map(|tenant| &tenant.service_accounts);
    let named = accounts.flat_map(|account| &account.policies).chain(&spec.iam.permissions_boundary);
    let has = |step: &Step, arn: &str| {
        let state = step.state.as_ref().filter(|_| step.kind == iam_role::NAME);
        let attached = state.and_then(|state| state["attached"].as_array()).into_iter().flatten();
        attached.chain(state.map(|state| &state["boundary"])).any(|policy| policy == arn)
    };
    let used = named.filter_map(|arn| Some((arn.as_str(), plan.steps.iter().find(|step| has(step, arn))?)));
    used.map(|(arn, step)| (arn, step.address.as_str())).collect()
}

/// The account's roles that get access, except those that `plan` creates, with the first address that uses each.
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

/// The error in the ARN of a role or a policy. `None` if the ARN is right.
async fn wrong(aws: &Aws, arn: &str) -> Result<Option<String>> {
    if arn.contains(":policy/") {
        return match aws.iam.get_policy().policy_arn(arn).send().await.map_err(failed("iam:GetPolicy")) {
            Ok(_) => Ok(None),
            Err(error) if is_not_found(&error) => Ok(Some("no policy has this ARN".to_owned())),
            Err(error) => Err(error),
        };
    }
    match aws.iam.get_role().role_name(name_in(arn)).send().await.map_err(failed("iam:GetRole")) {
        Ok(answer) => {
            let is = answer.role.map(|role| role.arn).unwrap_or_default();
            Ok((is != arn).then(|| format!("the role with this name has the ARN {is}")))
        }
        Err(error) if is_not_found(&error) => Ok(Some("no role has this ARN".to_owned())),
        Err(error) => Err(error),
    }
}
