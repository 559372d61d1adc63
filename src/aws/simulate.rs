//! Asks IAM whether calls would be allowed, before they are made.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_iam::types::{ContextEntry, ContextKeyTypeEnum, EvaluationResult, PolicyEvaluationDecisionType};

use super::Aws;
use super::error::failed;
use crate::arn::{Arn, name_in};
use crate::engine::error::{Class, Error, Result};

/// The ARN of the user or role whose policies apply. For a session, IAM is asked for the role, because a session's ARN
/// doesn't have the role's path. `None` for the account's root and for federated users.
pub async fn principal(aws: &Aws) -> Result<Option<String>> {
    match Arn::parse(&aws.caller).map(|caller| caller.typed()) {
        Some(("user", _)) => Ok(Some(aws.caller.clone())),
        Some(("role", _)) => {
            let role =
                aws.iam.get_role().role_name(name_in(&aws.caller)).send().await.map_err(failed("iam:GetRole"))?.role;
            Ok(role.map(|role| role.arn))
        }
        _ => Ok(None),
    }
}

/// The actions that `principal` may do on none of `resources`, with these values of condition keys. An action that
/// depends on a key without a value isn't returned: it may be allowed (IAM API, SimulatePrincipalPolicy).
pub async fn refused(
    aws: &Aws,
    principal: &str,
    actions: impl IntoIterator<Item = &str>,
    resources: &[String],
    context: &[(String, String)],
) -> Result<BTreeSet<String>> {
    let entries = context.iter().map(|(key, value)| {
        let kind = if value == "true" { ContextKeyTypeEnum::Boolean } else { ContextKeyTypeEnum::String };
        ContextEntry::builder().context_key_name(key).context_key_type(kind).context_key_values(value).build()
    });
    let call = aws
        .iam
        .simulate_principal_policy()
        .policy_source_arn(principal)
        .set_action_names(Some(actions.into_iter().map(str::to_owned).collect()))
        .set_resource_arns(Some(resources.to_vec()))
        .set_context_entries(Some(entries.collect()))
        .max_items(1000);
    let mut refused: BTreeMap<String, bool> = BTreeMap::new();
    let mut marker = None;
    loop {
        let page = call.clone().set_marker(marker).send().await.map_err(failed("iam:SimulatePrincipalPolicy"))?;
        for result in page.evaluation_results() {
            // For several resources, IAM returns one result for each, or one for all of them.
            *refused.entry(result.eval_action_name().to_owned()).or_insert(true) &= is_refused(result);
        }
        marker = page.marker().map(str::to_owned);
        if !page.is_truncated() {
            break;
        }
        if marker.is_none() {
            return Err(Error::new(Class::Unclear, "the simulation's next page has no marker"));
        }
    }
    Ok(refused.into_iter().filter(|(_, refused)| *refused).map(|(action, _)| action).collect())
}

/// True if the action is refused on every resource, and no missing condition key could change the result.
fn is_refused(result: &EvaluationResult) -> bool {
    let allowed = |decision: &PolicyEvaluationDecisionType| *decision == PolicyEvaluationDecisionType::Allowed;
    let each = result.resource_specific_results();
    match each {
        [] => !allowed(result.eval_decision()) && result.missing_context_values().is_empty(),
        _ => {
            result.missing_context_values().is_empty()
                && each
                    .iter()
                    .all(|one| !allowed(one.eval_resource_decision()) && one.missing_context_values().is_empty())
        }
    }
}
