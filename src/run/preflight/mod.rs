//! What can be known before the first write: whether AWS offers what a plan
//! makes, whether the account has room for it, whether the caller may make it,
//! and whether those exist that it gives access to.

mod offers;
mod permissions;
mod principals;
mod quotas;

use serde_json::Value;

use crate::engine::error::{Error, Result};
use crate::engine::plan::{Plan, refers_to};
use crate::run::{Failure, Host, Look, Session};
use crate::spec::SpecErrors;

pub use offers::{Findings, find as offers};

/// Everything that is known to stand in the way, together. `wrong` is what the
/// spec asks for and can't be.
///
/// # Errors
/// The plan can't be carried out as a whole.
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

/// What is the account's alone, whoever the caller is: the account has no room
/// for what `plan` makes, or lacks who gets access to it.
pub async fn account(session: &Session, host: &dyn Host, look: &Look, plan: &Plan) -> Vec<Error> {
    let (room, known) = tokio::join!(quotas::find(session, look, plan), principals::check(session, host, plan));
    room.notes.iter().for_each(|note| host.note(note));
    [room.result(&session.aws), known].into_iter().filter_map(Result::err).collect()
}

/// The zone of a subnet, which is given by its id, or by a reference to one
/// that isn't made yet.
fn zone_of<'l>(look: &'l Look, subnet: &Value) -> Option<&'l str> {
    let state = match refers_to(subnet).into_iter().next() {
        Some(address) => look.desired.iter().find(|r| r.address == address).map(|r| &r.state),
        None => {
            look.observed.found.values().flatten().find(|f| Some(f.id.as_str()) == subnet.as_str()).map(|f| &f.state)
        }
    };
    state?["zone"].as_str()
}
