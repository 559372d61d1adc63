//! What can be known before the first write: whether the account has room for
//! what a plan makes, and whether the caller may make it.

mod permissions;
mod quotas;

use super::session::{Look, Session};
use crate::engine::error::Result;
use crate::engine::plan::Plan;
use crate::ui::Ui;

/// # Errors
/// The plan can't be carried out as a whole.
pub async fn check(session: &Session, ui: &Ui, look: &Look, plan: &Plan) -> Result<()> {
    let (room, allowed) = tokio::join!(room(session, ui, look, plan), permissions::check(session, ui, plan));
    room.and(allowed)
}

/// # Errors
/// The account has no room for what `plan` makes.
pub async fn room(session: &Session, ui: &Ui, look: &Look, plan: &Plan) -> Result<()> {
    let findings = quotas::find(session, look, plan).await;
    findings.notes.iter().for_each(|note| ui.note(note));
    findings.result(&session.aws)
}
