//! Other policy engines give the verdicts of the native policies.

mod cel;
pub mod corpus;
mod gatekeeper;
mod opa;
mod psp;
mod table;

use std::collections::BTreeMap;

/// How an engine decided on the cases of a suite.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    pub admitted: usize,
    pub refused: usize,
    /// Cases with the native verdict.
    pub same: usize,
    /// The other cases, by the reason.
    pub differences: BTreeMap<String, usize>,
}

/// The rows of an engine, by suite.
pub type Rows = BTreeMap<String, Row>;

impl Row {
    /// Counts a case. `difference`: why the verdict isn't the native one.
    pub fn add(&mut self, admitted: bool, difference: Option<&str>) {
        *if admitted { &mut self.admitted } else { &mut self.refused } += 1;
        match difference {
            None => self.same += 1,
            Some(reason) => *self.differences.entry(reason.to_owned()).or_default() += 1,
        }
    }
}
