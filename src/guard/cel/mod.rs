//! CEL, the language of admission policies, as Kubernetes runs it.
//!
//! The crate `cel` parses expressions. Its interpreter allocates for each step, which makes it several times too slow
//! for a gateway, so [`compile`] translates what it parses: names become numbers of slots, and macros become loops.
//! [`Scene`] evaluates that on a request, whose JSON it borrows.
//!
//! Sources: the CEL specification (language definition, standard definitions), and in the Kubernetes documentation
//! "Common Expression Language in Kubernetes" (its libraries and their names), "Validating Admission Policy" and
//! "Mutating Admission Policy" (names of variables, `JSONPatch`). Whatever isn't known here is an error when a policy
//! is compiled, so no policy passes because a part of it isn't understood.

mod compile;
mod eval;
mod fields;
mod value;

use std::fmt;
use std::rc::Rc;

pub use compile::{Does, Expr, Function, Loop, Names, Operator, Root, Variables, compile};
pub use eval::Scene;
pub use fields::fields;
pub use value::{Check, Val};

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault(Rc<str>);

impl Fault {
    fn new(what: String) -> Self {
        Self(what.into())
    }

    /// An operation that isn't defined for values of these types.
    fn kinds(what: &str, values: &[&Val<'_>]) -> Self {
        let kinds: Vec<&str> = values.iter().map(|value| value.kind()).collect();
        Self::new(format!("no such overload: {what} of {}", kinds.join(" and ")))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests;
