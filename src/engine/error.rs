//! Failures as values: a class decides what the executor does about them, the
//! rest is for people.

use std::fmt;

use serde::Serialize;

/// What kind of failure this is. It decides retrying, and the words around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Credentials are missing, expired or lack a permission.
    Denied,
    /// The API asks for fewer calls. Retried.
    Throttled,
    /// Something else works on the same resource. Retried for a while.
    Conflict,
    /// The lock was lost, so nothing may be written any more.
    Lost,
    /// Something that isn't ours uses it. Retried for a moment: what is being
    /// taken down elsewhere may be gone then.
    Held,
    /// What the call needs isn't visible yet (IAM propagation, read after
    /// create). Retried for a while.
    NotYet,
    /// A permission is missing, or what gives it (such as tags of a new
    /// resource) doesn't count yet. Retried for a while; then it is `Denied`.
    NotYetAllowed,
    /// What the call names doesn't exist.
    NotFound,
    /// A resource of this name exists already.
    Exists,
    /// AWS refuses the request as it is.
    Invalid,
    /// It didn't get ready in time.
    Timeout,
    /// A service quota is used up.
    Quota,
    /// The endpoint can't be reached, or the answer isn't AWS's.
    Unreachable,
    /// The cluster doesn't serve the API that an object requires. Retried for
    /// a moment: an add-on may bring it.
    Unserved,
    /// The call may or may not have taken effect.
    Unclear,
    /// The resource reached a failed state.
    Failed,
    /// The user's input or environment is wrong.
    Input,
    /// The command line is wrong by itself, whatever the spec says and
    /// whatever exists.
    Usage,
    /// ringfence is wrong.
    Bug,
}

impl Class {
    /// The same command gives the same answer until somebody has mended something.
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

/// One failure, with what a person needs to go on.
#[derive(Clone, Debug, Serialize)]
pub struct Error {
    pub class: Class,
    /// What failed, as a sentence without a full stop.
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

/// Reads `value` as the typed state of a kind. A failure is a bug: states are
/// built by the stack or by the kind itself.
pub fn typed<T: serde::de::DeserializeOwned>(value: &serde_json::Value) -> Result<T> {
    T::deserialize(value).map_err(|e| Error::bug(format!("a resource's state has the wrong shape: {e}")))
}

/// The JSON of a typed state.
pub fn untyped<T: Serialize>(state: &T) -> Result<serde_json::Value> {
    serde_json::to_value(state).map_err(|e| Error::bug(format!("a resource's state can't be written as JSON: {e}")))
}
