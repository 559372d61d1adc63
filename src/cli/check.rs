use std::path::PathBuf;

use clap::Args;

use super::{Global, exit, host};
use crate::run::Failure;
use crate::run::check::{Checked, Documents, Judge};
use crate::template::Templates;
use crate::ui::Ui;

#[derive(Debug, Args)]
pub struct Check {
    /// Files with Kubernetes objects, directories of such files, or `-` for the standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The tenant whose objects they are.
    #[arg(long, value_name = "ID")]
    tenant: String,
    /// Also print the admitted objects with the fields that the policies fill in: as the cluster would store them. On
    /// versions of Kubernetes that fill in nothing (before 1.36), the printed objects are what to apply.
    #[arg(long)]
    decorated: bool,
}

impl Check {
    /// Works offline.
    pub fn run(self, global: &Global, ui: &Ui) -> Result<u8, Failure> {
        let spec = host::load(global, ui)?;
        let judge = Judge::of(&spec, &Templates::load(global.templates.as_deref())?, &self.tenant, self.decorated)?;
        let documents = Documents::read(&self.files, &mut std::io::stdin().lock())?;
        documents.notes.iter().for_each(|note| ui.note(note));
        let checked: Vec<Checked> = documents.found.iter().map(|document| judge.check(document)).collect();
        if self.decorated && !judge.cluster_decorates() {
            ui.note("this cluster's version of Kubernetes fills in no fields, so apply the objects as they are printed here");
        }
        ui.checked(&checked, &self.tenant, self.decorated)?;
        Ok(match checked.iter().all(|one| one.refusals.is_empty()) {
            true => exit::DONE,
            false => exit::ERROR,
        })
    }
}
