use std::fmt;

use crate::engine::error::Error;
use crate::spec::error::{SpecError, SpecErrors};

/// Why a command fails.
#[derive(Debug)]
pub enum Failure {
    /// The spec is wrong.
    Spec(SpecErrors),
    /// Anything else.
    Run(Error),
    /// Several failures that were found before the first write.
    Many(Vec<Failure>),
}

impl Failure {
    /// # Errors Returns all of `failures`, if there are any.
    pub fn all(mut failures: Vec<Self>) -> Result<(), Self> {
        match failures.len() {
            0 => Ok(()),
            1 => failures.pop().map_or(Ok(()), Err),
            _ => Err(Self::Many(failures)),
        }
    }
}

impl From<SpecErrors> for Failure {
    fn from(errors: SpecErrors) -> Self {
        Self::Spec(errors)
    }
}

impl From<SpecError> for Failure {
    fn from(error: SpecError) -> Self {
        Self::Spec(SpecErrors(vec![error]))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Run(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spec(errors) => errors.fmt(f),
            Self::Run(error) => error.fmt(f),
            Self::Many(failures) => failures.iter().try_for_each(|failure| writeln!(f, "{failure}")),
        }
    }
}

impl std::error::Error for Failure {}
