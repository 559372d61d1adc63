//! What is wrong with a spec, and where.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// Everything that is wrong with a spec, in the order of the file. Never empty.
#[derive(Clone, Debug, Serialize, thiserror::Error)]
#[serde(transparent)]
pub struct SpecErrors(pub Vec<SpecError>);

/// One thing that is wrong (or, among [`super::Spec::warnings`], worth knowing).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SpecError {
    pub code: Code,
    /// The place in the document, such as `spec.tenants[2].overrides.namespace.quota`.
    pub path: String,
    pub at: Excerpt,
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
    /// The other place, where the error is about two (a duplicate's first occurrence).
    pub related: Option<Related>,
}

/// A second place that an error is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Related {
    pub at: Excerpt,
    pub label: String,
}

/// A piece of a line of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Excerpt {
    pub file: PathBuf,
    /// From 1; 0 where the error is about the file as a whole.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// Characters that are marked, at least 1.
    pub length: usize,
    /// The line itself, or the part of a long line that holds the mark.
    pub text: String,
    /// Where the mark begins in `text`, from 1.
    pub text_column: usize,
}

/// What sort of mistake it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// Unreadable, empty, too large or too deep, or not YAML.
    Syntax,
    UnknownField,
    MissingField,
    WrongType,
    BadValue,
    Duplicate,
    /// A name that stands for nothing: a missing pool, tier, profile or control.
    UnknownName,
    /// An override of what the profile doesn't leave open.
    NotOverridable,
    /// A control is weakened and no waiver says why.
    WeakenedControl,
    /// Something no waiver allows.
    Forbidden,
    Waiver,
    Network,
    /// More than AWS allows by default; quotas can be raised.
    Quota,
    UnsupportedVersion,
    /// AWS doesn't have it in this region, or not in the zones that it is to be in.
    NotOffered,
}

impl fmt::Display for SpecErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code: _, path, at, message, help, related } = self;
        write!(f, "{at}: ")?;
        if !path.is_empty() {
            write!(f, "{path}: ")?;
        }
        writeln!(f, "{message}")?;
        at.quote(f)?;
        if let Some(Related { at, label }) = related {
            writeln!(f, "{at}: {label}")?;
            at.quote(f)?;
        }
        if let Some(help) = help {
            writeln!(f, "  help: {help}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        Ok(())
    }
}

impl Excerpt {
    fn quote(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return Ok(());
        }
        let number = self.line.to_string();
        // A tab in the source must be a tab under it, or the mark slips.
        let before = self.text.chars().take(self.text_column.saturating_sub(1));
        let indent: String = before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        writeln!(f, "  {number} | {}", self.text)?;
        writeln!(f, "  {:w$} | {indent}{}", "", "^".repeat(self.length.max(1)), w = number.len())
    }
}
