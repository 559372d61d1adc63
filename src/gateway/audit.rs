//! One line of JSON for each request. A line never has a token, a body or a value of a parameter.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::engine::error::{Error, Result};

/// One request, as far as it is known.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    pub time: String,
    pub id: String,
    /// The id of its trace, if it is recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// Who asks, if that is proven.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub verb: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// With its subresource, such as `pods/log`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub status: u16,
    pub verdict: Verdict,
    /// The policy, limit or check that refuses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Milliseconds until the answer began. At the end of a stream: how long it was open.
    pub milliseconds: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The gateway let the request through. The status is the API server's.
    Allowed,
    /// Nobody, or nobody who is known.
    Unauthenticated,
    /// Outside of the tenant's rights.
    Forbidden,
    /// The object breaks a policy.
    Denied,
    /// A limit is reached.
    Limited,
    /// The request isn't one that an API server would take.
    #[default]
    Malformed,
    /// The API server can't be reached.
    Failed,
    /// A stream ended.
    Ended,
}

impl Verdict {
    pub fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::Denied => "denied",
            Self::Limited => "limited",
            Self::Malformed => "malformed",
            Self::Failed => "failed",
            Self::Ended => "ended",
        }
    }
}

/// Where the lines go.
pub struct Audit(Mutex<Box<dyn Write + Send>>);

impl Audit {
    /// Appends to `file`, or writes to the standard output.
    ///
    /// # Errors
    /// The file can't be opened.
    pub fn open(file: Option<&Path>) -> Result<Self> {
        let out: Box<dyn Write + Send> = match file {
            Some(file) => Box::new(append(file).map_err(|e| {
                Error::input(format!("the audit log {} can't be opened: {e}", file.display()))
                    .help("create its directory, or leave `audit` out to write to the standard output")
            })?),
            None => Box::new(io::stdout()),
        };
        Ok(Self(Mutex::new(out)))
    }

    /// Writes a line.
    ///
    /// # Errors
    /// The line couldn't be written.
    pub fn write(&self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        let mut out = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        out.write_all(&text)?;
        out.flush()
    }
}

fn append(file: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(file)
}
