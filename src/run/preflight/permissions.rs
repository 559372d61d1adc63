use std::collections::BTreeMap;

use futures::future::try_join_all;

use crate::aws::simulate;
use crate::engine::address::Address;
use crate::engine::error::{Class, Error, Result};
use crate::engine::plan::Plan;
use crate::run::{Host, Session};
use crate::stack::permissions::{Question, questions};

/// Asks IAM to simulate the caller's policies for the actions that the plan's steps require. The check is a help, not
/// a gate: it passes if the caller may not simulate, or has no policies to simulate.
pub async fn check(session: &Session, host: &dyn Host, plan: &Plan) -> Result<()> {
    let questions = questions(&session.spec, &session.aws.scope.account, &plan.steps);
    let missing = missing(session, &questions).await.unwrap_or_else(|error| {
        host.detail(&format!("The caller's permissions could not be checked before the run: {error}"));
        BTreeMap::new()
    });
    if missing.is_empty() {
        return Ok(());
    }
    let lines = missing.iter().map(|(action, addresses)| match addresses {
        [] => format!("\n  {action}"),
        [only] => format!("\n  {action}: {only}"),
        [first, more @ ..] => format!("\n  {action}: {first} and {} more", more.len()),
    });
    let caller = &session.aws.caller;
    let message =
        format!("{caller} lacks permissions that this plan needs; nothing was changed:{}", lines.collect::<String>());
    Err(Error::new(Class::Denied, message).help(
        "`ringfence iam-policy` prints a policy that allows everything this spec needs; a permissions boundary or a \
         service control policy may take it away again; --no-preflight begins all the same",
    ))
}

/// Actions that IAM denies, and the addresses that need them.
async fn missing<'q>(session: &Session, questions: &'q [Question]) -> Result<BTreeMap<String, &'q [Address]>> {
    if questions.is_empty() {
        return Ok(BTreeMap::new());
    }
    let Some(principal) = simulate::principal(&session.aws).await? else { return Ok(BTreeMap::new()) };
    let asked = questions.iter().map(|question| async {
        let Question { actions, resources, context } = question;
        let refused = simulate::refused(&session.aws, &principal, actions.keys().copied(), resources, context).await?;
        let needed = refused.into_iter().map(|action| {
            let addresses = actions.get(action.as_str()).map(Vec::as_slice).unwrap_or_default();
            (action, addresses)
        });
        Ok::<_, Error>(needed.collect::<Vec<_>>())
    });
    Ok(try_join_all(asked).await?.into_iter().flatten().collect())
}
