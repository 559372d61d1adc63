//! A plan as a comment of a pull request, in GitHub's Markdown. Names are escaped, because a hostile name could be
//! markup.

use super::detail::Mark;
use super::human::{self, MISSING, MISSING_HELP, how_confirmed, verdict};
use super::text::{count, escaped, padded, plain, prose, width};
use super::view::{self, Depth, Group, Symbol};
use super::{Subject, why};
use crate::engine::kind::Registry;
use crate::engine::plan::{Loss, Plan, Summary};

/// GitHub refuses comments of more than 65,536 characters. This is the room for the groups.
const ROOM: usize = 56_000;

/// How many resources are listed by name in a paragraph.
const NAMES: usize = 20;

pub(super) fn plan(plan: &Plan, subject: &Subject, kinds: &Registry, verbose: bool) -> String {
    let groups = view::groups(plan, subject, kinds, Depth { all: verbose, width: 110 });
    let mut out = format!("## {}\n\n", escaped(&subject.heading()));
    for line in subject.scope() {
        out += &format!("{}\n\n", escaped(&line));
    }
    out += &format!("**{}**\n", escaped(&verdict(plan, subject)));
    let missing: Vec<String> =
        plan.drift.iter().flat_map(|d| &d.missing).map(|one| code(&view::missing(one))).collect();
    if !missing.is_empty() {
        out += &format!("\n> [!CAUTION]\n> {MISSING}. {}.\n", escaped(MISSING_HELP));
        missing.iter().take(ROOM / 200).for_each(|one| out += &format!("> - {one}\n"));
        if missing.len() > ROOM / 200 {
            out += &format!("> - and {} more\n", missing.len() - ROOM / 200);
        }
    }
    if !groups.is_empty() {
        out += "\n| | add | change | replace | destroy | blocked |\n|---|--:|--:|--:|--:|--:|\n";
    }
    for group in &groups {
        let Summary { add, change, replace, destroy } = group.counts;
        let more = match group.like.len() {
            0 => String::new(),
            n => format!(", and each of {n} like it"),
        };
        out += &format!(
            "| {}{more} | {add} | {change} | {replace} | {destroy} | {} |\n",
            code(&group.label),
            group.blocked
        );
    }
    if !plan.confirm.is_empty() {
        out += "\n> [!CAUTION]\n> These deletions lose work or data and must be confirmed:\n";
        for Loss { address, lost, kept } in plan.confirm.iter().take(NAMES) {
            out += &format!("> - {}: {}", code(address.as_str()), escaped(&prose(&lost.join("; "))));
            if !kept.is_empty() {
                out += &format!(". Kept: {}", escaped(&human::names(kept)));
            }
            out.push('\n');
        }
        if plan.confirm.len() > NAMES {
            out += &format!("> - and {} more\n", plan.confirm.len() - NAMES);
        }
        out += &format!(">\n> {}\n", escaped(how_confirmed(subject)));
    }
    for one in subject.wrong.iter().take(NAMES) {
        let help = one.help.as_deref().map(|h| format!(" {h}.")).unwrap_or_default();
        let text = prose(&format!("{}.{help}", one.message));
        out += &format!("\n> [!CAUTION]\n> {}: {}\n", code(&one.at.to_string()), escaped(&text));
    }
    for one in &plan.unread_hosts {
        let help = one.help.as_deref().map(|h| format!(" Help: {h}.")).unwrap_or_default();
        let reason = prose(&format!("{}.{help}", one.reason));
        out += &format!(
            "\n> [!WARNING]\n> The objects in cluster {} ({}) can't be read: {}\n",
            code(&one.host),
            count(one.objects, "object"),
            escaped(&reason)
        );
    }
    let mut hidden = 0;
    for group in &groups {
        let section = self::section(group);
        match out.len() + section.len() <= ROOM {
            true => out += &section,
            false => hidden += 1,
        }
    }
    if hidden > 0 {
        out += &format!(
            "\n{} not shown, because a comment has a maximum length. `--format html` shows everything.\n",
            count(hidden, "group")
        );
    }
    if !plan.kept.is_empty() {
        out += "\n**Stays**: ";
        out += &names(
            plan.kept.iter().map(|k| format!("{} ({})", code(k.address.as_str()), escaped(&prose(&why::kept(&k.why))))),
        );
        out.push('\n');
    }
    let notes = why::notes(plan, subject);
    for note in notes.iter().take(NAMES) {
        out += &format!("\n- {}", escaped(&prose(note)));
    }
    if !notes.is_empty() {
        out.push('\n');
    }
    out
}

fn names(all: impl ExactSizeIterator<Item = String>) -> String {
    let left = all.len().saturating_sub(NAMES);
    let mut text = all.take(NAMES).collect::<Vec<_>>().join(", ");
    if left > 0 {
        text += &format!(", and {left} more");
    }
    text
}

/// Text as code, in HTML: a backtick can't be escaped inside of backticks. In code, names like `@org` notify nobody.
fn code(text: &str) -> String {
    format!("<code>{}</code>", escaped(text))
}

/// One group as a collapsed section.
fn section(group: &Group) -> String {
    let mut body = String::new();
    let pad = group.lines.iter().map(|l| width(&l.title)).max().unwrap_or(0).min(48) + 2;
    for line in &group.lines {
        // GitHub colors a line of a diff by its first character.
        let symbol = match line.symbol {
            Symbol::Create => "+",
            Symbol::Update | Symbol::Wait | Symbol::Blocked => "!",
            Symbol::Replace | Symbol::Delete => "-",
        };
        let sign = match line.symbol {
            Symbol::Create | Symbol::Delete => String::new(),
            other => format!("{} ", other.text()),
        };
        let title = format!("{sign}{}", line.title);
        let text = format!("{}  {}  {}", padded(&title, pad), line.summary(60), line.controls.join(" "));
        body += &format!("{symbol} {}\n", plain(text.trim_end()));
        for detail in &line.details {
            let first = match detail.mark {
                Mark::Added => "+",
                Mark::Removed => "-",
                Mark::Alert => "!",
                Mark::Plain | Mark::Dim => " ",
            };
            body += &format!("{first}     {}{}\n", "  ".repeat(detail.depth), plain(&detail.text));
        }
    }
    if !group.like.is_empty() {
        let left = group.like.len().saturating_sub(NAMES);
        let more = if left > 0 { format!(", and {left} more") } else { String::new() };
        let like = group.like.iter().take(NAMES).map(|l| plain(l)).collect::<Vec<_>>().join(", ");
        body += &format!("\n  the same, {} each, for {like}{more}\n", group.tally());
    }
    let fence = "`".repeat(longest_run(&body).max(2) + 1);
    format!(
        "\n<details><summary>{}: {}</summary>\n\n{fence}diff\n{body}{fence}\n\n</details>\n",
        code(&group.label),
        group.tally()
    )
}

/// The longest run of backticks. A fence must be longer.
fn longest_run(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

/// A report or a failure as a code block.
pub(super) fn report(text: &str) -> String {
    let fence = "`".repeat(longest_run(text).max(2) + 1);
    format!("{fence}text\n{}\n{fence}\n", text.trim())
}
