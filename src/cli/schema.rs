use super::exit;
use crate::run::Failure;
use crate::spec;
use crate::ui::Ui;

pub fn run(ui: &Ui) -> Result<u8, Failure> {
    ui.print(&format!("{:#}", spec::schema()))?;
    Ok(exit::DONE)
}
