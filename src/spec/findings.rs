//! The errors and warnings that the checks find.

use super::error::{Code, Related, SpecError, SpecErrors};
use super::tree::{Mark, Node, Value, whole_file};
use super::words::{cut, quote};

/// More than a person reads. It also bounds the memory that hostile input can use.
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

    /// The warnings, or all errors if there is one. Sorted by place, without duplicates.
    pub fn finish(self) -> Result<Vec<SpecError>, SpecErrors> {
        if self.errors.is_empty() { Ok(in_order(self.warnings)) } else { Err(SpecErrors(in_order(self.errors))) }
    }
}

/// Sorts findings by place, removes duplicates, and keeps at most [`MAX_ERRORS`].
pub fn in_order(mut found: Vec<SpecError>) -> Vec<SpecError> {
    found.sort_by(|a, b| {
        let key = |e: &SpecError| (e.at.file.clone(), e.at.line, e.at.column);
        key(a).cmp(&key(b)).then_with(|| a.message.cmp(&b.message))
    });
    found.dedup_by(|a, b| a.at == b.at && a.message == b.message);
    if let Some(left) = found.len().checked_sub(MAX_ERRORS).filter(|left| *left > 0) {
        found.truncate(MAX_ERRORS);
        if let Some(file) = found.last().map(|last| last.at.file.clone()) {
            found.push(whole_file(&file, format!("{left} more errors aren't shown"), "correct the errors above first"));
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

/// A value, described for an error message.
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
