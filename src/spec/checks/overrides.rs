//! Tenants' overrides of their tiers.

use super::Checker;
use crate::spec::error::Code;
use crate::spec::profile::{self, Loaded};
use crate::spec::settings::IsolationModel;
use crate::spec::tree::{Entry, Node, Value};
use crate::spec::words::{join, list, quote};

impl Checker<'_, '_> {
    /// The part of a tenant's overrides that its tier allows (`overridable`). Any other override is an error.
    pub(super) fn overridable(
        &mut self,
        node: &Node,
        path: &str,
        loaded: &Loaded,
        isolation: IsolationModel,
        open: &[Vec<&str>],
        at: &mut Vec<String>,
    ) -> Node {
        let mut allowed = Vec::new();
        for entry in node.entries() {
            at.push(entry.key.clone());
            let here = join(path, &entry.key);
            let within = |o: &Vec<&str>| o.len() <= at.len() && o.iter().zip(at.iter()).all(|(a, b)| a == b);
            let above = |o: &Vec<&str>| o.len() > at.len() && o.iter().zip(at.iter()).all(|(a, b)| a == b);
            if at.len() == 1 && !profile::uses(isolation, &entry.key) {
                let message = format!("`{}` has no effect on {}", entry.key, profile::subject(isolation));
                let help = format!("remove it; it belongs {}", profile::home(&entry.key, isolation));
                self.error(Code::NotOverridable, &here, &entry.key_mark, message, help);
            } else if open.iter().any(within) {
                allowed.push(entry.clone());
            } else if open.iter().any(above) && matches!(entry.value.value, Value::Map(_)) {
                let value = self.overridable(&entry.value, &here, loaded, isolation, open, at);
                allowed.push(Entry { value, ..entry.clone() });
            } else {
                let message = format!("the tier {} doesn't allow overrides of `{}`", quote(&loaded.name), at.join("."));
                let help = match loaded.overridable.as_slice() {
                    [] => "the tier allows no overrides".to_owned(),
                    some => format!("the tier allows overrides of {}", list(some.iter().map(String::as_str))),
                };
                self.error(Code::NotOverridable, &here, &entry.key_mark, message, help);
            }
            at.pop();
        }
        Node { value: Value::Map(allowed), mark: node.mark.clone() }
    }
}
