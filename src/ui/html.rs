//! A plan as one self-contained page, without scripts, fonts or requests. The templates are `templates/*.html`. They
//! escape every value.

use std::io::{self, Write};

use serde_json::{Value, json};
use tera::{Context, Tera};

use super::detail::{Detail, Mark};
use super::human::{MISSING, MISSING_HELP, how_confirmed, names, verdict};
use super::text::{escaped, prose};
use super::view::{self, Depth, Group, Line, Symbol};
use super::{Subject, why};
use crate::engine::kind::Registry;
use crate::engine::plan::{Plan, Summary};

const PAGES: [(&str, &str); 3] = [
    ("page.html", include_str!("templates/page.html")),
    ("plan.html", include_str!("templates/plan.html")),
    ("report.html", include_str!("templates/report.html")),
];

pub(super) fn plan(plan: &Plan, subject: &Subject, kinds: &Registry) -> io::Result<String> {
    let missing: Vec<String> = plan.drift.iter().flat_map(|d| &d.missing).map(view::missing).collect();
    let lost = plan
        .confirm
        .iter()
        .map(|loss| json!({"address": loss.address.as_str(), "lost": proses(&loss.lost), "kept": names(&loss.kept)}));
    let blocked = plan.unread_hosts.iter().map(|one| {
        let help = prose(one.help.as_deref().unwrap_or_default());
        json!({"cluster": one.host, "reason": prose(&one.reason), "help": help})
    });
    let kept = plan
        .kept
        .iter()
        .map(|kept| json!({"address": kept.address.as_str(), "id": kept.id, "reason": prose(&why::kept(&kept.why))}));
    let wrong = subject
        .wrong
        .iter()
        .map(|one| prose(&format!("{} ({}). {}", one.message, one.at, one.help.as_deref().unwrap_or_default())));
    let groups = view::groups(plan, subject, kinds, Depth { all: true, width: 120 });
    page(
        "plan.html",
        &json!({
            "title": subject.heading(),
            "scope": subject.scope(),
            "verdict": verdict(plan, subject),
            "missing_heading": MISSING,
            "missing_help": MISSING_HELP,
            "missing": missing,
            "lost": lost.collect::<Vec<_>>(),
            "how_confirmed": how_confirmed(subject),
            "blocked": blocked.collect::<Vec<_>>(),
            "groups": groups.iter().map(group).collect::<Vec<_>>(),
            "kept": kept.collect::<Vec<_>>(),
            "wrong": wrong.collect::<Vec<_>>(),
            "notes": proses(&why::notes(plan, subject)),
        }),
    )
}

fn proses<'a>(texts: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    texts.into_iter().map(|text| prose(text)).collect()
}

fn group(group: &Group) -> Value {
    let Summary { add, change, replace, destroy } = group.counts;
    json!({
        "label": group.label,
        "tally": group.tally(),
        "counts": [add, change, replace, destroy, group.blocked],
        "lines": group.lines.iter().map(line).collect::<Vec<_>>(),
    })
}

fn line(line: &Line) -> Value {
    let class = match line.symbol {
        Symbol::Create => "add",
        Symbol::Update | Symbol::Wait => "change",
        Symbol::Replace | Symbol::Delete | Symbol::Blocked => "destroy",
    };
    json!({
        "class": class,
        "symbol": line.symbol.text(),
        "title": line.title,
        "summary": line.summaries.join(", "),
        "controls": line.controls.join(" "),
        "details": line.details.iter().map(detail).collect::<Vec<_>>(),
    })
}

fn detail(detail: &Detail) -> Value {
    let class = match detail.mark {
        Mark::Plain => "",
        Mark::Added => "add",
        Mark::Removed | Mark::Alert => "destroy",
        Mark::Dim => "dim",
    };
    json!({"class": class, "text": format!("{}{}", "  ".repeat(detail.depth), detail.text)})
}

/// A report or a failure as a page.
pub(super) fn report(title: &str, text: &str) -> io::Result<String> {
    page("report.html", &json!({"title": title, "lines": text.trim().lines().collect::<Vec<_>>()}))
}

fn page(name: &str, values: &Value) -> io::Result<String> {
    let rendered = || {
        let mut pages = Tera::default();
        pages.autoescape_on([".html"]);
        pages.set_escape_fn(escape);
        pages.add_raw_templates(PAGES)?;
        pages.render(name, &Context::from_serialize(values)?)
    };
    rendered().map_err(io::Error::other)
}

fn escape(text: &str, output: &mut dyn Write) -> io::Result<()> {
    output.write_all(escaped(text).as_bytes())
}
