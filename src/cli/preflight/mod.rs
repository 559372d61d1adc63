//! What can be known before the first write: whether the account has room for
//! what a plan makes, and whether the caller may make it.

mod permissions;

use super::session::{Look, Session};
use crate::engine::error::Result;
use crate::engine::plan::Plan;

/// # Errors
/// The plan can't be carried out as a whole.
pub async fn check(session: &Session, _look: &Look, plan: &Plan) -> Result<()> {
    if plan.steps.is_empty() {
        return Ok(());
    }
    permissions::check(session, plan).await
}
