use std::collections::BTreeMap;

use clap::Args;

use super::{Global, exit, host};
use crate::engine::error::Error;
use crate::engine::plan::Policy;
use crate::run::{Failure, Session};
use crate::ui::Ui;

#[derive(Debug, Args)]
pub struct Output {
    /// Print the outputs of the resource at this address only.
    address: Option<String>,
}

impl Output {
    pub async fn run(self, global: &Global, ui: &Ui) -> Result<u8, Failure> {
        let session = host::open(global, ui).await?;
        session.during(async |session| self.show(session, ui).await).await
    }

    async fn show(self, session: &Session, ui: &Ui) -> Result<u8, Failure> {
        let look = session.look(&Policy::default(), false).await?;
        look.observed.readable()?;
        let mut outputs: BTreeMap<String, BTreeMap<String, String>> =
            look.outputs().into_iter().filter(|(_, o)| !o.is_empty()).map(|(a, o)| (a.to_string(), o)).collect();
        if let Some(address) = &self.address {
            let Some(one) = outputs.remove(address) else {
                return Err(Error::input(format!("no resource exists at the address `{address}`"))
                    .help("run `ringfence output` without an address to list all resources")
                    .into());
            };
            outputs = [(address.clone(), one)].into();
        }
        let text = serde_json::to_string_pretty(&outputs)
            .map_err(|e| Error::bug(format!("outputs can't be written as JSON: {e}")))?;
        ui.print(&text)?;
        Ok(exit::DONE)
    }
}
