//! The `resources` rules of a fault script: a resource is slower than usual, ends in another state, or never ends.
//! `docs/faults.md` documents the format.

use super::faults::{any, matches, told};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The part of a resource's lifecycle that a rule is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum During {
    #[default]
    Create,
    Update,
    Delete,
}

use During::{Create, Delete, Update};

/// The statuses, other than success, in which an operation on a kind may end (from the services' models).
const ENDS: &[(&str, During, &[&str])] = &[
    ("eks:cluster", Create, &["FAILED"]),
    ("eks:cluster", Update, &["Failed"]),
    ("eks:cluster", Delete, &["FAILED"]),
    ("eks:nodegroup", Create, &["CREATE_FAILED", "DEGRADED"]),
    ("eks:nodegroup", Update, &["Failed"]),
    ("eks:nodegroup", Delete, &["DELETE_FAILED"]),
    ("eks:fargate-profile", Create, &["CREATE_FAILED"]),
    ("eks:fargate-profile", Delete, &["DELETE_FAILED"]),
    ("eks:addon", Create, &["CREATE_FAILED", "DEGRADED"]),
    ("eks:addon", Update, &["Failed", "DEGRADED"]),
    ("eks:addon", Delete, &["DELETE_FAILED"]),
    ("ec2:natgateway", Create, &["failed"]),
    ("ec2:natgateway", Delete, &[]),
    ("ec2:vpc-endpoint", Create, &["failed"]),
    ("ec2:vpc-endpoint", Delete, &[]),
];

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    kind: String,
    /// For an EC2 resource: its tag `Name`, or else its id.
    #[serde(default = "any")]
    name: String,
    #[serde(default)]
    during: During,
    /// The rule is used at most so many times.
    times: Option<u64>,
    /// The status in which the operation ends instead of success.
    ends: Option<String>,
    because: Option<Because>,
    /// Factor of the usual duration.
    #[serde(default = "usual")]
    slower: f64,
    /// The resource stays in its transitional state until another script is set.
    #[serde(default)]
    stuck: bool,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Because {
    code: String,
    #[serde(default = "told")]
    message: String,
}

fn usual() -> f64 {
    1.0
}

impl Rule {
    /// # Errors
    /// The rule is invalid. The text says why.
    pub fn check(&self) -> Result<(), String> {
        let Self { kind, during, ends, because, slower, stuck, .. } = self;
        let Some((.., known)) = ENDS.iter().find(|(one, when, _)| one == kind && when == during) else {
            let mut kinds: Vec<&str> = ENDS.iter().map(|(kind, ..)| *kind).collect();
            kinds.dedup();
            return Err(format!("has an unknown kind for its `during`; possible kinds are {}", kinds.join(", ")));
        };
        match ends {
            Some(end) if !known.contains(&end.as_str()) => {
                Err(format!("can't end with the status {end}; possible statuses are {}", known.join(", ")))
            }
            None if because.is_some() => {
                Err("has a reason, but doesn't say how the operation ends (`ends`)".to_owned())
            }
            _ if !slower.is_finite() || *slower <= 0.0 => Err("has a `slower` that isn't a number above 0".to_owned()),
            None if !stuck && *slower == 1.0 => Err("needs one of `ends`, `slower` and `stuck`".to_owned()),
            _ => Ok(()),
        }
    }

    /// For messages.
    pub fn kind(&self) -> &str {
        &self.kind
    }
}

/// The rules of the present script, each with the number of times it was used.
#[derive(Debug, Clone, Default)]
pub struct Fates(Vec<(Rule, u64)>);

impl Fates {
    pub fn new(rules: Vec<Rule>) -> Self {
        Self(rules.into_iter().map(|rule| (rule, 0)).collect())
    }

    /// The fate of an operation that begins now. The first matching rule decides.
    pub fn of(&mut self, kind: &str, name: &str, during: During) -> Fate {
        let fits = |(rule, used): &&mut (Rule, u64)| {
            rule.kind == kind
                && rule.during == during
                && matches(&rule.name, name)
                && rule.times.is_none_or(|times| *used < times)
        };
        let Some((rule, used)) = self.0.iter_mut().find(fits) else { return Fate::default() };
        *used += 1;
        let because = || Because { code: "InternalFailure".to_owned(), message: told() };
        let end = rule.ends.clone().map(|status| (status, rule.because.clone().unwrap_or_else(because)));
        Fate { slower: rule.slower, stuck: rule.stuck, end }
    }
}

/// The effect of a script on one operation on a resource.
#[derive(Debug, Clone)]
pub struct Fate {
    pub slower: f64,
    pub stuck: bool,
    end: Option<(String, Because)>,
}

impl Default for Fate {
    fn default() -> Self {
        Self { slower: 1.0, stuck: false, end: None }
    }
}

impl Fate {
    /// The status in which the operation ends.
    pub fn status(&self) -> Option<&str> {
        self.end.as_ref().map(|(status, _)| status.as_str())
    }

    /// Code and message.
    pub fn reason(&self) -> Option<[&str; 2]> {
        self.end.as_ref().map(|(_, Because { code, message })| [code.as_str(), message.as_str()])
    }

    /// Status and health, as EKS's resources have them.
    pub fn health(&self) -> Option<Value> {
        let (status, Because { code, message }) = self.end.as_ref()?;
        Some(json!({"status": status, "health": {"issues": [{"code": code, "message": message, "resourceIds": []}]}}))
    }
}
