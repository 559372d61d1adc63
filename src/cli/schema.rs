use super::exit;
use crate::spec;
use crate::run::Failure;
use crate::ui::Ui;

pub fn run(ui: &Ui) -> Result<u8, Failure> {
    ui.print(&format!("{:#}", spec::schema()))?;
    Ok(exit::DONE)
}
