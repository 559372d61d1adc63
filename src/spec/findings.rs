//! What the checks find, and the words they share.

use super::error::{Code, Related, SpecError, SpecErrors};
use super::tree::{Mark, Node, Value, whole_file};

/// More than a person reads, and a bound on what hostile input makes us keep.
const MAX_ERRORS: usize = 200;

#[derive(Debug, Default)]
pub struct Findings {
    pub errors: Vec<SpecError>,
    pub warnings: Vec<SpecError>,
}

impl Findings {
    pub fn error(&mut self, error: SpecError) {
        self.errors.push(error);
    }

    pub fn warn(&mut self, warning: SpecError) {
        self.warnings.push(warning);
    }

    /// The warnings, or all errors: in the order of the file, each once.
    pub fn finish(self) -> Result<Vec<SpecError>, SpecErrors> {
        if self.errors.is_empty() { Ok(in_order(self.warnings)) } else { Err(SpecErrors(in_order(self.errors))) }
    }
}

/// In the order of the file, each once.
pub fn in_order(mut found: Vec<SpecError>) -> Vec<SpecError> {
    found.sort_by(|a, b| {
        let key = |e: &SpecError| (e.at.file.clone(), e.at.line, e.at.column);
        key(a).cmp(&key(b)).then_with(|| a.message.cmp(&b.message))
    });
    found.dedup_by(|a, b| a.at == b.at && a.message == b.message);
    if let Some(left) = found.len().checked_sub(MAX_ERRORS).filter(|left| *left > 0) {
        found.truncate(MAX_ERRORS);
        if let Some(file) = found.last().map(|last| last.at.file.clone()) {
            found.push(whole_file(&file, format!("{left} more are left out"), "correct these first"));
        }
    }
    found
}

impl SpecError {
    pub(super) fn new(code: Code, path: impl Into<String>, mark: &Mark, message: impl Into<String>) -> Self {
        Self { code, path: path.into(), at: mark.excerpt(), message: message.into(), help: None, related: None }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(super) fn related(mut self, mark: &Mark, label: impl Into<String>) -> Self {
        self.related = Some(Related { at: mark.excerpt(), label: label.into() });
        self
    }
}

/// `parent.key`, quoted where the key holds a dot of its own.
pub fn join(parent: &str, key: &str) -> String {
    match (parent, key.contains(['.', '[', ' '])) {
        ("", _) => key.to_owned(),
        (_, true) => format!("{parent}[{key:?}]"),
        (_, false) => format!("{parent}.{key}"),
    }
}

/// The value as an error names it.
pub fn describe(node: &Node) -> String {
    match &node.value {
        Value::Null | Value::Invalid => "nothing".to_owned(),
        Value::Bool(b) => format!("`{b}`"),
        Value::Number { raw, .. } => format!("the number {}", cut(raw)),
        Value::Text(text) => format!("the text {}", quote(text)),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a mapping".to_owned(),
    }
}

/// Text from the file, safe and short enough for a message.
pub fn quote(text: &str) -> String {
    format!("`{}`", cut(text))
}

fn cut(text: &str) -> String {
    let plain: String =
        text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect();
    if plain.chars().count() <= 80 { plain } else { plain.chars().take(79).chain(['…']).collect() }
}

/// The candidate that was probably meant.
pub fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A long text is no slip of the finger, and comparing it costs the product of the lengths.
    if text.len() > 64 {
        return None;
    }
    let plain = |s: &str| s.chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_lowercase();
    let text = plain(text);
    candidates
        .into_iter()
        .map(|candidate| (candidate, strsim::normalized_damerau_levenshtein(&text, &plain(candidate))))
        .filter(|(_, likeness)| *likeness >= 0.6)
        // The first of several that are equally near.
        .reduce(|best, next| if next.1 > best.1 { next } else { best })
        .map(|(candidate, _)| candidate)
}

/// `a, b and c`, in backquotes.
pub fn list<'a>(items: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = items.into_iter().map(|item| format!("`{item}`")).collect();
    match quoted.split_last() {
        None => "none".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

/// What would be right, where one of a closed list is.
pub fn one_of(text: &str, candidates: &[&str]) -> String {
    match nearest(text, candidates.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if candidates.is_empty() => "there are none".to_owned(),
        None if candidates.len() == 1 => format!("it must be {}", list(candidates.iter().copied())),
        None if candidates.len() <= 40 => format!("one of {}", list(candidates.iter().copied())),
        None => format!("see `ringfence schema` for the {} that there are", candidates.len()),
    }
}
