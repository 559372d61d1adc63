use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, exit};
use crate::engine::error::Error;
use crate::run::Failure;
use crate::ui::Ui;

#[derive(Debug, Args)]
pub struct Completions {
    shell: Shell,
}

impl Completions {
    pub fn run(self, ui: &Ui) -> Result<u8, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "ringfence", &mut script);
        let script =
            String::from_utf8(script).map_err(|e| Error::bug(format!("the completion script isn't text: {e}")))?;
        ui.print(&script)?;
        Ok(exit::DONE)
    }
}
