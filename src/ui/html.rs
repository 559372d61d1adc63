//! A plan as one page that needs nothing else: no script, no font, no request.

use super::Subject;
use super::detail::Mark;
use super::human::{MISSING, MISSING_HELP, how_confirmed, names, verdict};
use super::text::{escaped, prose};
use super::view::{self, Depth, Symbol};
use crate::engine::kind::Registry;
use crate::engine::plan::{Loss, Plan, Summary};

const STYLE: &str = "\
:root{color-scheme:light dark;--add:light-dark(#116329,#7ee787);--change:light-dark(#7a4e00,#e3b341);\
--destroy:light-dark(#b3261e,#ff7b72);--dim:light-dark(#59636e,#9198a1);--line:light-dark(#d1d9e0,#3d444d)}\
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.4rem}.verdict{font-weight:600}table{border-collapse:collapse}\
th,td{padding:.2rem .8rem;border-bottom:1px solid var(--line);text-align:right}\
th:first-child,td:first-child{text-align:left}\
details{border-bottom:1px solid var(--line);padding:.2rem 0}details details{border:0;padding:0}\
.group>summary{font-weight:600}summary{cursor:pointer}.plain{padding-left:1.1rem}\
code,pre,.line{font:13px/1.5 ui-monospace,monospace}pre{margin:.2rem 0 .6rem 2.2rem;white-space:pre-wrap;overflow-wrap:anywhere}\
.add{color:var(--add)}.change{color:var(--change)}.destroy{color:var(--destroy)}.dim{color:var(--dim)}\
.sign{display:inline-block;min-width:2.2rem}.warn{border-left:4px solid var(--destroy);padding-left:.8rem}";

pub(super) fn plan(plan: &Plan, subject: &Subject, kinds: &Registry) -> String {
    let groups = view::groups(plan, subject, kinds, Depth { all: true, width: 120 });
    let mut body = format!("<h1>{}</h1>\n", escaped(&subject.heading()));
    for line in subject.scope() {
        body += &format!("<p>{}</p>\n", escaped(&line));
    }
    body += &format!("<p class=\"verdict\">{}</p>\n", escaped(&verdict(plan, subject)));
    let missing: Vec<String> = plan.drift.iter().flat_map(|d| &d.missing).map(view::missing).collect();
    if !missing.is_empty() {
        body += &format!("<div class=\"warn\"><p>{MISSING}. {}.</p><ul>\n", escaped(MISSING_HELP));
        missing.iter().for_each(|one| body += &format!("<li><code>{}</code></li>\n", escaped(one)));
        body += "</ul></div>\n";
    }
    if !plan.confirm.is_empty() {
        body += "<div class=\"warn\"><p>Lost, and to be confirmed:</p><ul>\n";
        for Loss { address, lost, kept } in &plan.confirm {
            let lost: String = lost.iter().map(|what| format!("<li>{}</li>", escaped(&prose(what)))).collect();
            body += &format!("<li><code>{}</code><ul>{lost}</ul>", escaped(address.as_str()));
            if !kept.is_empty() {
                body += &format!("What stays of it: {}", escaped(&names(kept)));
            }
            body += "</li>\n";
        }
        body += &format!("</ul><p>{}</p></div>\n", escaped(how_confirmed(subject)));
    }
    for one in &plan.blocked_clusters {
        body += &format!(
            "<div class=\"warn\"><p>The inside of cluster <code>{}</code> can't be read: {}</p><p>{}</p></div>\n",
            escaped(&one.cluster),
            escaped(&prose(&one.reason)),
            escaped(&prose(one.help.as_deref().unwrap_or_default()))
        );
    }
    if !groups.is_empty() {
        body += "<table><thead><tr><th></th><th>add</th><th>change</th><th>replace</th><th>destroy</th><th>blocked</th></tr></thead><tbody>\n";
        for group in &groups {
            let Summary { add, change, replace, destroy } = group.counts;
            body += &format!(
                "<tr><td>{}</td><td>{add}</td><td>{change}</td><td>{replace}</td><td>{destroy}</td><td>{}</td></tr>\n",
                escaped(&group.label),
                group.blocked
            );
        }
        body += "</tbody></table>\n";
    }
    for group in &groups {
        body += &format!(
            "<details class=\"group\"><summary>{} <span class=\"dim\">{}</span></summary>\n",
            escaped(&group.label),
            escaped(&group.tally())
        );
        for line in &group.lines {
            let class = match line.symbol {
                Symbol::Create => "add",
                Symbol::Update | Symbol::Wait => "change",
                Symbol::Replace | Symbol::Delete | Symbol::Blocked => "destroy",
            };
            let head = format!(
                "<span class=\"{class} sign\">{}</span>{} {} <span class=\"dim\">{}</span>",
                escaped(line.symbol.text()),
                escaped(&line.title),
                escaped(&line.summaries.join(", ")),
                line.controls.join(" ")
            );
            if line.details.is_empty() {
                body += &format!("<div class=\"line plain\">{head}</div>\n");
                continue;
            }
            body += &format!("<details><summary class=\"line\">{head}</summary><pre>");
            for detail in &line.details {
                let text = format!("{}{}", "  ".repeat(detail.depth), detail.text);
                body += &match detail.mark {
                    Mark::Plain => escaped(&text),
                    Mark::Added => span("add", &text),
                    Mark::Removed | Mark::Alert => span("destroy", &text),
                    Mark::Dim => span("dim", &text),
                };
                body.push('\n');
            }
            body += "</pre></details>\n";
        }
        body += "</details>\n";
    }
    if !plan.kept.is_empty() {
        body += "<h2>Stays</h2><ul>\n";
        for kept in &plan.kept {
            body += &format!(
                "<li><code>{}</code> ({}): {}</li>\n",
                escaped(kept.address.as_str()),
                escaped(&kept.id),
                escaped(&prose(&kept.reason))
            );
        }
        body += "</ul>\n";
    }
    if !subject.wrong.is_empty() {
        body += "<h2>Not offered here</h2><ul>\n";
        for one in &subject.wrong {
            let text = format!("{} ({}). {}", one.message, one.at, one.help.as_deref().unwrap_or_default());
            body += &format!("<li>{}</li>\n", escaped(&prose(&text)));
        }
        body += "</ul>\n";
    }
    if !plan.notes.is_empty() {
        body += "<h2>Notes</h2><ul>\n";
        for note in &plan.notes {
            body += &format!("<li>{}</li>\n", escaped(&prose(note)));
        }
        body += "</ul>\n";
    }
    page(&subject.heading(), &body)
}

fn span(class: &str, text: &str) -> String {
    format!("<span class=\"{class}\">{}</span>", escaped(text))
}

/// Text of a run's end, or of what kept it from beginning.
pub(super) fn report(title: &str, text: &str) -> String {
    let lines: Vec<String> = text.trim().lines().map(escaped).collect();
    page(title, &format!("<pre>{}</pre>\n", lines.join("\n")))
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{}</title>\n<style>{STYLE}</style></head><body>\n{body}</body></html>\n",
        escaped(title)
    )
}
