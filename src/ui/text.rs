//! Words, widths and colors.

use std::fmt::Write as _;
use std::time::Duration;

use console::{Alignment, measure_text_width, pad_str, truncate_str};
use textwrap::core::Word;
use textwrap::wrap_algorithms::wrap_first_fit;

/// Adds colors to text, or leaves it plain.
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

/// `text` on one line, with escapes for control characters, invisible characters and characters that change the
/// direction of text: a terminal or a reader could take them for something else.
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

/// [`plain`] for each line of a text.
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

/// The number of columns of `text` on a terminal. An East Asian character or an emoji has two columns, a combining
/// mark has none.
pub(super) fn width(text: &str) -> usize {
    measure_text_width(text)
}

/// `text` in at most `room` columns. A cut is marked by `…`.
pub(super) fn cut(text: &str, room: usize) -> String {
    truncate_str(text, room, "…").into_owned()
}

/// `text` without its first `columns` columns.
pub(super) fn past(text: &str, columns: usize) -> &str {
    let mut passed = 0;
    text.trim_start_matches(|c: char| {
        let inside = passed < columns;
        passed += width(c.encode_utf8(&mut [0; 4]));
        inside
    })
}

/// `text`, padded with spaces to `to` columns.
pub(super) fn padded(text: &str, to: usize) -> String {
    pad_str(text, to, Alignment::Left, None).into_owned()
}

/// `words` in lines of at most `room` columns. A longer word isn't split.
fn wrap<'a>(words: impl Iterator<Item = &'a str>, room: usize) -> Vec<String> {
    let words: Vec<Word> = words.map(|word| Word { word, whitespace: " ", penalty: "", width: width(word) }).collect();
    #[expect(clippy::cast_precision_loss, reason = "a terminal is narrower than 2^52 columns")]
    let lines = wrap_first_fit(&words, &[room as f64]);
    // textwrap returns one empty line if there are no words.
    let lines = lines.into_iter().filter(|line| !line.is_empty());
    lines.map(|line| line.iter().map(|word| word.word).collect::<Vec<_>>().join(" ")).collect()
}

/// Adds `text` to `out`, wrapped at spaces. The first line follows `first`, the other lines are indented by its
/// width.
pub(super) fn hang(out: &mut String, first: &str, text: &str, room: usize) {
    let left = room.saturating_sub(width(first)).max(20);
    let lines = text.lines().flat_map(|l| wrap(plain(l).split_whitespace(), left)).collect();
    hang_lines(out, first, lines);
}

/// [`hang`] for a list, which is wrapped between its items.
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

/// `text` escaped for HTML, and for Markdown outside of code.
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

/// A sort key that puts `a-10` after `a-9`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Number(u64),
    Text(String),
}

pub(super) fn natural(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let digit = c.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != digit).unwrap_or(rest.len());
        let (part, after) = rest.split_at(end);
        parts.push(match part.parse() {
            Ok(number) if digit => Part::Number(number),
            _ => Part::Text(part.to_owned()),
        });
        rest = after;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn east_asian_characters_and_emoji_take_two_columns() {
        for (text, columns) in
            [("acme", 4), ("株式会社", 8), ("ｱｸﾒ", 3), ("🚀 Acme", 7), ("Cafe\u{301}", 4), ("→…✗", 3)]
        {
            assert_eq!(width(text), columns, "{text}");
        }
        assert_eq!(cut("株式会社アクメ", 8), "株式会…");
        assert_eq!(cut("株式会社アクメ", 7), "株式会…");
        assert_eq!(cut("株式会社", 8), "株式会社");
        assert_eq!(past("株式会社", 3), "会社");
        assert_eq!(past("a🚀b", 1), "🚀b");
        assert_eq!(padded("会社", 6), "会社  ");
    }

    #[test]
    fn lines_are_as_wide_as_the_room() {
        let mut out = String::new();
        hang(&mut out, "  会社: ", "東京の 株式会社 アクメ 🚀🚀🚀 end  of\n\nit", 28);
        let items = ["株式会社アクメ", "大阪 支店", "b"].map(str::to_owned);
        hang_list(&mut out, "- ", &items, 22);
        insta::assert_snapshot!(out, @"
          会社: 東京の 株式会社
                アクメ 🚀🚀🚀 end of
                it
        - 株式会社アクメ,
          大阪 支店, b
        ");
    }
}
