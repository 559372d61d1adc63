//! Renders the verdicts on objects that `check` found.

use serde_json::{Value, json};
use tera::{Context, Tera};

use super::human::Layout;
use super::text::{count, hang, plain, prose};
use crate::guard::Refusal;
use crate::run::check::Checked;
use crate::spec::Control;

const JUNIT: (&str, &str) = ("junit.xml", include_str!("templates/junit.xml"));

/// The message without the control, which stands before it.
fn said(refusal: &Refusal) -> &str {
    let control = refusal.control.as_deref().unwrap_or_default();
    refusal.message.strip_prefix(control).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(&refusal.message)
}

pub(super) fn human(checked: &[Checked], tenant: &str, layout: Layout) -> String {
    let mut out = String::new();
    for one in checked.iter().filter(|one| layout.verbose || !one.refusals.is_empty()) {
        let word = match one.refusals.is_empty() {
            true => layout.paint.green("admitted"),
            false => layout.paint.red("refused"),
        };
        out += &plain(&format!("{}:{}: {} {}", one.file, one.line, one.kind, one.name));
        out += &format!(": {word}\n");
        for refusal in &one.refusals {
            let control = refusal.control.as_deref().unwrap_or("-");
            hang(&mut out, &format!("  {control:<8}"), said(refusal), layout.width);
        }
    }
    let refused = checked.iter().filter(|one| !one.refusals.is_empty()).count();
    if !out.is_empty() {
        out.push('\n');
    }
    out += &format!(
        "{} for tenant {}: {} admitted, {refused} refused.\n",
        count(checked.len(), "object"),
        plain(tenant),
        checked.len() - refused
    );
    out
}

pub(super) fn json(checked: &[Checked], tenant: &str, decorated: bool) -> Value {
    let objects = checked.iter().map(|one| {
        let mut object = json!({
            "file": one.file, "line": one.line, "kind": one.kind, "name": one.name,
            "admitted": one.refusals.is_empty(), "refusals": one.refusals,
        });
        if let (true, Some(stored)) = (decorated, &one.decorated) {
            object["decorated"] = stored.clone();
        }
        object
    });
    json!({
        "schema": "ringfence.dev/check/v1", "type": "check", "tenant": tenant,
        "objects": objects.collect::<Vec<_>>(),
    })
}

/// SARIF 2.1.0, as code hosts show it beside the lines of a change.
pub(super) fn sarif(checked: &[Checked]) -> Value {
    let refusals = || checked.iter().flat_map(|one| one.refusals.iter().map(move |refusal| (one, refusal)));
    let rule = |refusal: &Refusal| refusal.control.clone().unwrap_or_else(|| refusal.policy.clone());
    let mut ids: Vec<String> = refusals().map(|(_, refusal)| rule(refusal)).collect();
    ids.sort();
    ids.dedup();
    let rules = ids.iter().map(|id| {
        let title = id.parse::<Control>().map_or_else(|_| id.clone(), |control| control.title().to_owned());
        json!({"id": id, "shortDescription": {"text": title}})
    });
    let results = refusals().map(|(one, refusal)| {
        json!({
            "ruleId": rule(refusal), "level": "error",
            "message": {"text": format!("{} {}: {}", one.kind, one.name, said(refusal))},
            "locations": [{
                "physicalLocation": {"artifactLocation": {"uri": one.file}, "region": {"startLine": one.line}},
                "logicalLocations": [{"fullyQualifiedName": format!("{}/{}", one.kind, one.name)}],
            }],
        })
    });
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "ringfence", "version": env!("CARGO_PKG_VERSION"), "rules": rules.collect::<Vec<_>>(),
            }},
            "results": results.collect::<Vec<_>>(),
        }],
    })
}

/// JUnit's XML, as CI systems count it: one test for each object.
pub(super) fn junit(checked: &[Checked], tenant: &str) -> std::io::Result<String> {
    let cases = checked.iter().map(|one| {
        let refusals = one.refusals.iter().map(|refusal| {
            json!({
                "control": refusal.control.as_deref().unwrap_or(&refusal.policy), "message": prose(said(refusal)),
            })
        });
        json!({
            "name": prose(&format!("{} {}", one.kind, one.name)), "file": prose(&one.file), "line": one.line,
            "refusals": refusals.collect::<Vec<_>>(),
        })
    });
    let refused = checked.iter().filter(|one| !one.refusals.is_empty()).count();
    let values = json!({
        "tenant": prose(tenant), "tests": checked.len(), "failures": refused, "cases": cases.collect::<Vec<_>>(),
    });
    let mut tera = Tera::default();
    tera.autoescape_on([".xml"]);
    tera.add_raw_templates([JUNIT]).map_err(std::io::Error::other)?;
    let context = Context::from_serialize(&values).map_err(std::io::Error::other)?;
    tera.render(JUNIT.0, &context).map_err(std::io::Error::other)
}
