use super::{Global, exit, host};
use crate::engine::graph;
use crate::run::Failure;
use crate::stack::{self, Facts};
use crate::template::Templates;
use crate::ui::Ui;

/// Works offline, with assumed zones and versions.
pub async fn run(global: &Global, ui: &Ui) -> Result<u8, Failure> {
    let spec = host::load(global, ui)?;
    let templates = Templates::load(global.templates.as_deref())?;
    let desired = stack::build(&spec, &Facts::assumed(&spec), &templates)?;
    let mut dot = String::from("digraph ringfence {\n  rankdir=LR;\n  node [shape=box];\n");
    for resource in desired.iter() {
        dot.push_str(&format!("  \"{}\" [tooltip=\"{}\"];\n", resource.address, resource.kind));
        for need in graph::needs(resource) {
            dot.push_str(&format!("  \"{}\" -> \"{need}\";\n", resource.address));
        }
    }
    dot.push_str("}\n");
    ui.print(&dot)?;
    Ok(exit::DONE)
}
