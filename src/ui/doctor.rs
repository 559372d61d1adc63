//! Renders what `doctor` found.

use serde_json::{Value, json};

use super::human::Layout;
use super::text::{hang, plain};
use crate::run::doctor::{Check, Verdict};

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Good => "ok",
        Verdict::Attention => "note",
        Verdict::Unknown => "unknown",
        Verdict::Wrong => "wrong",
    }
}

pub(super) fn human(checks: &[Check], next: &str, layout: Layout) -> String {
    let mut out = String::new();
    for Check { name, verdict, text, help } in checks {
        let word = format!("{:<8}", word(*verdict));
        let mut line = String::new();
        hang(&mut line, &format!("{word}{name:<16}"), text, layout.width);
        let painted = match verdict {
            Verdict::Good => layout.paint.green(&word),
            Verdict::Attention | Verdict::Unknown => layout.paint.yellow(&word),
            Verdict::Wrong => layout.paint.red(&word),
        };
        out += &line.replacen(&word, &painted, 1);
        if let Some(help) = help {
            hang(&mut out, &format!("{:<24}", ""), help, layout.width);
        }
    }
    out.push('\n');
    hang(&mut out, "Next: ", next, layout.width);
    out
}

pub(super) fn json(checks: &[Check], next: &str) -> Value {
    json!({"schema": "ringfence.dev/doctor/v1", "type": "doctor", "checks": checks, "next": next})
}

pub(super) fn markdown(checks: &[Check], next: &str) -> String {
    let cell = |text: &str| plain(text).replace('|', "\\|").replace('\n', "<br>");
    let mut out = "| | what | found | what to do |\n|---|---|---|---|\n".to_owned();
    for Check { name, verdict, text, help } in checks {
        let help = help.as_deref().unwrap_or_default();
        out += &format!("| {} | {name} | {} | {} |\n", word(*verdict), cell(text), cell(help));
    }
    out + &format!("\nNext: `{}`\n", plain(next))
}
