use std::collections::BTreeSet;

use clap::Args;

use super::{Global, exit, host};
use crate::engine::error::Error;
use crate::run::{Failure, Session};
use crate::ui::Ui;

#[derive(Debug, Args)]
pub struct Unlock {
    /// Don't ask for confirmation.
    #[arg(long)]
    auto_approve: bool,
}

impl Unlock {
    pub async fn run(self, global: &Global, ui: &Ui) -> Result<u8, Failure> {
        let session = host::open(global, ui).await?;
        session.during(async |session| self.release(session, ui).await).await?;
        Ok(exit::DONE)
    }

    async fn release(self, session: &Session, ui: &Ui) -> Result<(), Failure> {
        let store = session.lock();
        let all = store.list().await?;
        let Some(holder) = all.last().filter(|s| !s.released()) else {
            let message = format!("no run holds the lock of {} in {}", session.spec.name, session.spec.region);
            return Err(Error::input(message).help("no lock needs to be released").into());
        };
        ui.note(&format!(
            "The lock of {} in {} is held by {}.",
            session.spec.name,
            session.spec.region,
            holder.holder()
        ));
        let question = "Release it? If that run is still alive, it stops before its next write.";
        if !self.auto_approve && !ui.confirm(question, &BTreeSet::new()).await? {
            return Err(Error::input("not confirmed; nothing was changed").into());
        }
        store.free(holder).await?;
        ui.note("The lock is released.");
        Ok(())
    }
}
