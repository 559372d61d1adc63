use crate::cli::session::Session;
use crate::engine::error::Result;
use crate::engine::plan::Plan;

pub async fn check(_session: &Session, _plan: &Plan) -> Result<()> {
    Ok(())
}
