use std::path::PathBuf;

use clap::Args;

use super::{Global, exit, session, unwritten};
use crate::kinds::k8s::manifest;
use crate::stack::{self, Facts};
use crate::template::Templates;
use crate::ui::{Failure, Ui};

#[derive(Debug, Args)]
pub struct Render {
    /// Where the files go: one directory a cluster.
    #[arg(long, value_name = "DIR", default_value = "rendered")]
    out: PathBuf,
}

impl Render {
    /// Offline: what refers to ids that AWS gives is left as `<address.output>`.
    pub async fn run(self, global: &Global, ui: &Ui) -> Result<u8, Failure> {
        let spec = session::load(global, ui)?;
        let templates = Templates::load(global.templates.as_deref())?;
        let desired = stack::build(&spec, &Facts::assumed(&spec), &templates)?;
        let mut written = 0;
        for resource in desired.iter().filter(|r| r.kind == manifest::NAME) {
            let object = crate::engine::value::shown(resource.state.get("object").unwrap_or(&serde_json::Value::Null));
            let owner = resource.address.owner().to_string().replace('/', "-");
            let file = self.out.join(owner).join(format!("{}.yaml", resource.address.local().replace('/', "-")));
            let text = crate::template::yaml(&object)?;
            let write = || {
                if let Some(dir) = file.parent() {
                    std::fs::create_dir_all(dir)?;
                }
                std::fs::write(&file, &text)
            };
            write().map_err(|e| unwritten(&file.display().to_string(), &e))?;
            written += 1;
        }
        ui.note(&format!("{written} objects written to {}", self.out.display()));
        Ok(exit::DONE)
    }
}
