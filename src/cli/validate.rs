use super::{Global, exit, host};
use crate::run::Failure;
use crate::stack::{self, Facts};
use crate::template::Templates;
use crate::ui::Ui;

/// Works offline. Also builds all resources with assumed facts, so that errors in templates are found.
pub fn run(global: &Global, ui: &Ui) -> Result<u8, Failure> {
    let spec = host::load(global, ui)?;
    let templates = Templates::load(global.templates.as_deref())?;
    stack::check(&spec, &Facts::assumed(&spec), &templates)?;
    ui.valid(&spec)?;
    Ok(exit::DONE)
}
