//! The only module that turns failures into text.

use std::io;

use serde_json::{Value, json};

use super::human::Layout;
use super::text::{count, hang, plain, width};
use crate::engine::error::{Class, Error};
use crate::run::Failure;
use crate::spec::error::{Excerpt, SpecError, SpecErrors};

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let help = match error.kind() {
            io::ErrorKind::StorageFull => "free some space, then run the same command",
            _ => "check the file or the program that receives the output",
        };
        Self::Run(Error::input(format!("the output can't be written: {error}")).help(help))
    }
}

/// A failure for people.
pub(super) fn human(failure: &Failure, layout: Layout) -> String {
    let mut out = String::new();
    match failure {
        Failure::Spec(SpecErrors(errors)) => {
            out.push_str(&findings(errors, layout));
            let text = format!("{} in the spec", count(errors.len(), "error"));
            out.push_str(&format!("{}: {text}\n", layout.paint.red("error")));
        }
        Failure::Run(error) => run(&mut out, error, layout),
        Failure::Many(failures) => {
            let all: Vec<String> = failures.iter().map(|failure| human(failure, layout)).collect();
            out.push_str(&all.join("\n"));
        }
    }
    out
}

/// The errors of a spec, each followed by an empty line.
pub(super) fn findings(errors: &[SpecError], layout: Layout) -> String {
    let mut out = String::new();
    for error in errors {
        spec(&mut out, error, &layout.paint.red("error"), layout);
        out.push('\n');
    }
    out
}

/// Warnings of a spec for people.
pub(super) fn warnings(warnings: &[SpecError], layout: Layout) -> String {
    let mut out = String::new();
    for warning in warnings {
        spec(&mut out, warning, &layout.paint.yellow("warning"), layout);
        out.push('\n');
    }
    out
}

/// What to do next: the error's own help, else the help for its class.
pub(super) fn help(error: &Error) -> Option<String> {
    let by_class = match error.class {
        Class::Denied | Class::NotYetAllowed => {
            "check which credentials are used, whether they have expired, and which permissions they have"
        }
        Class::Throttled => {
            "wait a minute, then run the same command; a lower --parallelism makes fewer calls at the same time"
        }
        Class::Conflict => {
            "another operation on the resource is in progress; wait until it ends, then run the same command"
        }
        Class::Lost => {
            "when no other run is active, run the same command again; it reads what exists and continues from there"
        }
        Class::Held => "delete or detach the resources that still use it, then run the same command",
        Class::NotYet | Class::Unclear => "run the same command; it reads what exists and continues from there",
        Class::Timeout => "run the same command; it continues to wait",
        Class::Quota => {
            "request a quota increase in Service Quotas, or delete unused resources, then run the same command"
        }
        Class::Unreachable => "check the network, the proxy and AWS_ENDPOINT_URL, then run the same command",
        Class::Bug => "this is a bug in ringfence; please report it with the command and this message",
        Class::Unserved => "install the component that provides this API in the cluster, then run the same command",
        Class::Invalid => "AWS refuses this request; correct what the message names, in the spec or in the account",
        Class::Failed | Class::NotFound | Class::Exists | Class::Input | Class::Usage => "",
    };
    match &error.help {
        Some(help) => Some(help.clone()),
        None => (!by_class.is_empty()).then(|| by_class.to_owned()),
    }
}

fn run(out: &mut String, error: &Error, layout: Layout) {
    let heading = match error.class {
        Class::Denied => "access denied",
        Class::Throttled => "throttled",
        Class::Conflict => "conflict",
        Class::Held => "still in use",
        Class::Timeout => "not ready in time",
        Class::Quota => "quota exceeded",
        Class::Unreachable => "unreachable",
        Class::Bug => "bug",
        _ => "error",
    };
    hang(out, &format!("{heading}: "), &error.message, layout.width);
    if let Some(rest) = out.strip_prefix(heading) {
        *out = format!("{}{rest}", layout.paint.red(heading));
    }
    let call = match (&error.operation, &error.code) {
        (Some(operation), Some(code)) => Some(format!("{operation} answered {code}")),
        (Some(operation), None) => Some(operation.clone()),
        (None, Some(code)) => Some(code.clone()),
        (None, None) => None,
    };
    if let Some(call) = call {
        hang(out, "  call: ", &call, layout.width);
    }
    if let Some(help) = help(error) {
        hang(out, "  help: ", &help, layout.width);
    }
}

/// One finding about a spec, laid out like a compiler's message.
fn spec(out: &mut String, error: &SpecError, level: &str, layout: Layout) {
    let paint = layout.paint;
    let gutter = [Some(&error.at), error.related.as_ref().map(|r| &r.at)]
        .into_iter()
        .flatten()
        .map(|at| at.line.to_string().len())
        .max()
        .unwrap_or(1);
    out.push_str(&format!("{level}: {}\n", paint.bold(&plain(&error.message))));
    excerpt(out, &error.at, "-->", "", gutter, layout);
    if let Some(related) = &error.related {
        excerpt(out, &related.at, ":::", &related.label, gutter, layout);
    }
    let lead = " ".repeat(gutter + 1);
    if !error.path.is_empty() {
        out.push_str(&format!("{lead}= at {}\n", plain(&error.path)));
    }
    if let Some(help) = &error.help {
        hang(out, &format!("{lead}= help: "), help, layout.width);
    }
}

fn excerpt(out: &mut String, at: &Excerpt, arrow: &str, label: &str, gutter: usize, layout: Layout) {
    let paint = layout.paint;
    let blank = " ".repeat(gutter);
    out.push_str(&format!("{blank}{} {}\n", paint.cyan(arrow), plain(&at.to_string())));
    if at.line == 0 {
        if !label.is_empty() {
            out.push_str(&format!("{blank} {} {}\n", paint.cyan("="), plain(label)));
        }
        return;
    }
    // The line is shown with escapes, so the mark's position counts them.
    let shown = |text: String| plain(&text.replace('\t', "    "));
    let before: String = at.text.chars().take(at.text_column.saturating_sub(1)).collect();
    let marked: String = at.text.chars().skip(before.chars().count()).take(at.length).collect();
    let indent = " ".repeat(width(&shown(before)));
    let mark = "^".repeat(width(&shown(marked)).max(1));
    let bar = paint.cyan("|");
    out.push_str(&format!("{blank} {bar}\n"));
    out.push_str(&format!("{} {bar} {}\n", paint.cyan(&format!("{:>gutter$}", at.line)), shown(at.text.clone())));
    let label = if label.is_empty() { String::new() } else { format!(" {}", plain(label)) };
    out.push_str(&format!("{blank} {bar} {indent}{}\n", paint.red(&format!("{mark}{label}"))));
}

/// A failure as a JSON document.
pub(super) fn json(failure: &Failure) -> Value {
    fn errors(failure: &Failure) -> Vec<Value> {
        match failure {
            Failure::Spec(SpecErrors(errors)) => errors.iter().map(finding).collect(),
            Failure::Run(error) => vec![error_json(error)],
            Failure::Many(failures) => failures.iter().flat_map(errors).collect(),
        }
    }
    let errors = errors(failure);
    json!({"schema": "ringfence.dev/error/v1", "type": "error", "errors": errors})
}

/// One failure of a run. `help` is null if there is none.
pub(super) fn error_json(error: &Error) -> Value {
    json!({
        "class": error.class,
        "message": error.message,
        "code": error.code,
        "operation": error.operation,
        "help": help(error),
    })
}

pub(super) fn finding(error: &SpecError) -> Value {
    let at = |at: &Excerpt| {
        json!({
            "file": at.file.display().to_string(),
            "line": at.line,
            "column": at.column,
            "length": at.length,
            "text": at.text,
        })
    };
    json!({
        "class": "spec",
        "code": error.code,
        "message": error.message,
        "path": error.path,
        "help": error.help,
        "at": at(&error.at),
        "related": error.related.as_ref().map(|r| {
            let mut related = at(&r.at);
            if let Value::Object(fields) = &mut related {
                fields.insert("label".to_owned(), json!(r.label));
            }
            related
        }),
    })
}
