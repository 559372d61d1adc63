use clap::{Args, ValueEnum};

use super::{Global, exit, host};
use crate::run::Failure;
use crate::stack::{self, Facts, permissions};
use crate::template::Templates;
use crate::ui::Ui;

#[derive(Debug, Args)]
pub struct IamPolicy {
    /// Which commands the role may run. `plan`: plan, drift and output, with reads only. `apply`: every command.
    #[arg(long = "for", value_name = "COMMAND", value_enum, default_value_t = Purpose::Apply)]
    purpose: Purpose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Purpose {
    Plan,
    Apply,
}

impl IamPolicy {
    /// Works offline: the policy doesn't depend on zones or versions.
    pub fn run(&self, global: &Global, ui: &Ui) -> Result<u8, Failure> {
        let spec = host::load(global, ui)?;
        let policy = match self.purpose {
            Purpose::Plan => permissions::reads(),
            Purpose::Apply => {
                let templates = Templates::load(global.templates.as_deref())?;
                let desired = stack::build(&spec, &Facts::assumed(&spec), &templates)?;
                permissions::changes(&spec, &desired)
            }
        };
        ui.print(&format!("{policy:#}"))?;
        Ok(exit::DONE)
    }
}
