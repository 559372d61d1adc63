//! What can be known before the first write: whether the account has room for
//! what a plan makes, whether the caller may make it, and whether those exist
//! that it gives access to.

mod permissions;
mod principals;
mod quotas;

use super::session::{Look, Session};
use crate::engine::error::Result;
use crate::engine::plan::Plan;
use crate::ui::Ui;

/// # Errors
/// The plan can't be carried out as a whole.
pub async fn check(session: &Session, ui: &Ui, look: &Look, plan: &Plan) -> Result<()> {
    let (ready, allowed) = tokio::join!(account(session, ui, look, plan), permissions::check(session, ui, plan));
    ready.and(allowed)
}

/// What is the account's alone, whoever the caller is.
///
/// # Errors
/// The account has no room for what `plan` makes, or lacks who gets access to it.
pub async fn account(session: &Session, ui: &Ui, look: &Look, plan: &Plan) -> Result<()> {
    let (room, known) = tokio::join!(quotas::find(session, look, plan), principals::check(session, ui, plan));
    room.notes.iter().for_each(|note| ui.note(note));
    room.result(&session.aws).and(known)
}
