//! Failures as values. The class decides what the executor does. The other fields are for people.

use std::fmt;

use serde::Serialize;

/// The class of a failure. It decides about retries, and about the help text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Credentials are missing, expired or lack a permission.
    Denied,
    /// The API throttles calls. Retried.
    Throttled,
    /// Another operation on the same resource is running. Retried for a limited time.
    Conflict,
    /// The lock was lost, so no more writes are allowed.
    Lost,
    /// A resource that isn't ours uses the resource. Retried for a short time, because that resource may be being
    /// deleted.
    Held,
    /// The call depends on something that isn't visible yet (IAM propagation, read after create). Retried for a
    /// limited time.
    NotYet,
    /// A permission is missing, or its condition (such as the tags of a new resource) isn't effective yet. Retried
    /// for a limited time, then it becomes `Denied`.
    NotYetAllowed,
    /// The resource that the call names doesn't exist.
    NotFound,
    /// A resource with this name exists already.
    Exists,
    /// AWS refuses the request. A retry can't help.
    Invalid,
    /// The resource didn't become ready in time.
    Timeout,
    /// A service quota is exceeded.
    Quota,
    /// The endpoint can't be reached, or the answer isn't from AWS.
    Unreachable,
    /// The cluster doesn't serve the API that an object requires. Retried for a short time, because an add-on may
    /// provide the API.
    Unserved,
    /// The call may or may not have taken effect.
    Unclear,
    /// The resource reached a failed state.
    Failed,
    /// The user's input or environment is wrong.
    Input,
    /// The command line is wrong, independent of the spec and of what exists.
    Usage,
    /// A bug in ringfence.
    Bug,
}

impl Class {
    /// True if the same command fails again until someone repairs the cause.
    pub fn is_for_good(self) -> bool {
        match self {
            Self::Denied | Self::Invalid | Self::Input | Self::Usage | Self::Bug => true,
            Self::Throttled
            | Self::Conflict
            | Self::Held
            | Self::NotYet
            | Self::NotYetAllowed
            | Self::Lost
            | Self::NotFound
            | Self::Exists
            | Self::Timeout
            | Self::Quota
            | Self::Unreachable
            | Self::Unserved
            | Self::Unclear
            | Self::Failed => false,
        }
    }
}

/// One failure, with what a user needs to continue.
#[derive(Clone, Debug, Serialize)]
pub struct Error {
    pub class: Class,
    /// What failed, as a sentence without a period.
    pub message: String,
    /// The service's own code, such as `InvalidParameterException`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The call, such as `eks:CreateCluster`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self { class, message: super::secret::hide(&message.into()), code: None, operation: None, help: None }
    }

    pub fn input(message: impl Into<String>) -> Self {
        Self::new(Class::Input, message)
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Class::Usage, message)
    }

    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(Class::Bug, message)
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub fn operation(mut self, operation: impl Into<String>) -> Self {
        self.operation = Some(operation.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(operation) = &self.operation {
            write!(f, "{operation}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(code) = &self.code {
            write!(f, " ({code})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
