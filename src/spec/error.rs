//! Errors and warnings of a spec, with their places.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// All errors of a spec, in the order of the file. Never empty.
#[derive(Clone, Debug, Serialize, thiserror::Error)]
#[serde(transparent)]
pub struct SpecErrors(pub Vec<SpecError>);

/// One error or, in [`super::Spec::warnings`], one warning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SpecError {
    pub code: Code,
    /// The place in the document, such as `spec.tenants[2].overrides.namespace.quota`.
    pub path: String,
    pub at: Excerpt,
    pub message: String,
    /// How to correct it.
    pub help: Option<String>,
    /// A second place that the error is about, such as the first occurrence of a duplicate.
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
    /// From 1. 0 for an error about the file as a whole.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The number of marked characters, at least 1.
    pub length: usize,
    /// The line itself, or the part of a long line that holds the mark.
    pub text: String,
    /// Where the mark begins in `text`, from 1.
    pub text_column: usize,
}

/// The class of the mistake.
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
    /// A name of a pool, tier, profile or control that doesn't exist.
    UnknownName,
    /// An override that the profile doesn't allow.
    NotOverridable,
    /// A control is weakened without a waiver.
    WeakenedControl,
    /// A setting that no waiver can allow.
    Forbidden,
    Waiver,
    Network,
    /// More than AWS's default quota. Quotas can be raised.
    Quota,
    UnsupportedVersion,
    /// AWS doesn't offer it in this region, or not in the zones where it is needed.
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
        // A tab in the source line needs a tab in the line below it. Otherwise the mark is at the wrong column.
        let before = self.text.chars().take(self.text_column.saturating_sub(1));
        let indent: String = before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        writeln!(f, "  {number} | {}", self.text)?;
        writeln!(f, "  {:w$} | {indent}{}", "", "^".repeat(self.length.max(1)), w = number.len())
    }
}
