//! Words, widths and colours.

use std::fmt::Write as _;
use std::time::Duration;

/// Puts colours around text, or doesn't.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint(pub bool);

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        match self.0 && !text.is_empty() {
            true => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            false => text.to_owned(),
        }
    }

    pub fn green(self, text: &str) -> String {
        self.with("32", text)
    }

    pub fn yellow(self, text: &str) -> String {
        self.with("33", text)
    }

    pub fn red(self, text: &str) -> String {
        self.with("31", text)
    }

    pub fn cyan(self, text: &str) -> String {
        self.with("36", text)
    }

    pub fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    pub fn dim(self, text: &str) -> String {
        self.with("2", text)
    }
}

/// `text` on one line, without anything that a terminal or a reader could take
/// for something else: control characters, and those that change the
/// direction of text or can't be seen, are written as escapes.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() || is_invisible(c) => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// As [`plain`], with its lines kept apart.
pub(super) fn plain_lines(text: &str) -> Vec<String> {
    text.trim_end().lines().map(|l| plain(&l.replace('\t', "    "))).collect()
}

fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e000}'..='\u{f8ff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// Sentences on one line.
pub(super) fn prose(text: &str) -> String {
    plain(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Width in columns, near enough: one for each character.
pub(super) fn width(text: &str) -> usize {
    text.chars().count()
}

/// `text` in at most `room` columns; a cut is shown by `…`.
pub(super) fn cut(text: &str, room: usize) -> String {
    if width(text) <= room {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(room.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// `words` in lines of at most `room` columns; a longer word stays whole.
fn wrap<'a>(words: impl Iterator<Item = &'a str>, room: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in words {
        if !line.is_empty() && width(&line) + 1 + width(word) > room {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

/// Adds `text` to `out`, wrapped at spaces: the first line after `first`, the
/// others under it.
pub(super) fn hang(out: &mut String, first: &str, text: &str, room: usize) {
    let left = room.saturating_sub(width(first)).max(20);
    let lines = text.lines().flat_map(|l| wrap(plain(l).split_whitespace(), left)).collect();
    hang_lines(out, first, lines);
}

/// As [`hang`], for a list that is wrapped between its items.
pub(super) fn hang_list(out: &mut String, first: &str, items: &[String], room: usize) {
    let left = room.saturating_sub(width(first)).max(20);
    let last = items.len().saturating_sub(1);
    let items: Vec<String> = items
        .iter()
        .enumerate()
        .map(|(i, item)| format!("{}{}", plain(item), if i < last { "," } else { "" }))
        .collect();
    hang_lines(out, first, wrap(items.iter().map(String::as_str), left));
}

fn hang_lines(out: &mut String, first: &str, lines: Vec<String>) {
    let indent = width(first);
    for (i, line) in lines.iter().enumerate() {
        match i {
            0 => out.push_str(first),
            _ => out.extend(std::iter::repeat_n(' ', indent)),
        }
        out.push_str(line);
        out.push('\n');
    }
}

/// `1 resource`, `2 resources`.
pub(super) fn count(n: usize, noun: &str) -> String {
    match n {
        1 => format!("1 {noun}"),
        _ => format!("{n} {noun}s"),
    }
}

/// `9m 12s`.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0) => "<1s".to_owned(),
        (0, 0, s) => format!("{s}s"),
        (0, m, 0) => format!("{m}m"),
        (0, m, s) => format!("{m}m {s}s"),
        (h, m, _) => format!("{h}h {m}m"),
    }
}

/// `text` for HTML and for Markdown outside of code: what either could take
/// for markup becomes a character reference.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in plain(text).chars() {
        match c {
            '&' | '<' | '>' | '"' | '\'' | '`' | '|' | '*' | '_' | '[' | ']' | '~' | '\\' | '@' | '#' | '!' | '$' => {
                let _ = write!(out, "&#{};", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}
