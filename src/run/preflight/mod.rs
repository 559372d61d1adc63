//! Checks before the first write: does AWS offer what the plan creates, are the quotas sufficient, is the caller
//! allowed, and do the principals and policies exist that the spec refers to?

mod offers;
mod permissions;
mod principals;
mod quotas;

use serde_json::Value;

use crate::engine::error::{Error, Result};
use crate::engine::plan::Plan;
use crate::engine::value::references;
use crate::run::{Failure, Host, Look, Session};
use crate::spec::SpecErrors;

pub use offers::{Findings, find as offers};

/// Runs all checks, and returns all their failures together. `wrong`: errors in the spec that the offers showed.
///
/// # Errors The plan can't be executed completely.
pub async fn check(
    session: &Session,
    host: &dyn Host,
    look: &Look,
    plan: &Plan,
    wrong: SpecErrors,
) -> std::result::Result<(), Failure> {
    let (account, allowed) = tokio::join!(account(session, host, look, plan), permissions::check(session, host, plan));
    let spec = (!wrong.0.is_empty()).then_some(Failure::Spec(wrong));
    let run = account.into_iter().chain(allowed.err()).map(Failure::Run);
    Failure::all(spec.into_iter().chain(run).collect())
}

/// The checks that don't depend on the caller: the account's quotas, and the principals that get access.
pub async fn account(session: &Session, host: &dyn Host, look: &Look, plan: &Plan) -> Vec<Error> {
    let (room, known) = tokio::join!(quotas::find(session, look, plan), principals::check(session, host, plan));
    room.notes.iter().for_each(|note| host.note(note));
    [room.result(&session.aws), known].into_iter().filter_map(Result::err).collect()
}

/// The zone of a subnet. `subnet` is an id, or a reference to a subnet that isn't created yet.
fn zone_of<'l>(look: &'l Look, subnet: &Value) -> Option<&'l str> {
    let state = match references(subnet).into_iter().next() {
        Some((address, _)) => look.desired.get(&address).map(|r| &r.state),
        None => {
            look.observed.found.values().flatten().find(|f| Some(f.id.as_str()) == subnet.as_str()).map(|f| &f.state)
        }
    };
    state?["zone"].as_str()
}
