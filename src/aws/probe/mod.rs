//! Makes the same calls to two endpoints and compares the answers: a stand-in for AWS against AWS, or against another
//! stand-in. The calls only touch resources that they made, and delete them again.

mod compare;
mod wire;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::engine::clock::Clock;
use crate::engine::error::{Class, Error, Result};
use crate::engine::pause::{Patience, Pauses};
pub use compare::Difference;
use compare::{Kept, Row, differences};
use wire::{Answer, Endpoint, REGION, encoded};

const CALLS: &str = include_str!("calls.yaml");
/// The time limit for AWS to create or delete a resource.
const AWS_PATIENCE: Duration = Duration::from_secs(30 * 60);
/// The same time limit for stand-ins, whose answers don't change later.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    values: BTreeMap<String, String>,
    calls: Vec<Call>,
}

/// One line of `calls.yaml`.
#[derive(Clone, Debug, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Call {
    call: String,
    #[serde(rename = "as")]
    variant: String,
    rest: String,
    with: Map<String, Value>,
    keep: BTreeMap<String, String>,
    undo: Option<Box<Call>>,
    until: Option<(String, String)>,
}

impl Call {
    fn service(&self) -> &str {
        self.call.split(':').next().unwrap_or_default()
    }

    fn operation(&self) -> &str {
        self.call.rsplit(':').next().unwrap_or_default()
    }

    fn name(&self) -> String {
        format!("{} {}", self.call, self.variant).trim_end().to_owned()
    }

    /// The call with values in place of names. `None`: a value isn't known, because the call that returns it failed.
    fn filled(&self, known: &Kept) -> Option<Self> {
        let mut with = Value::Object(self.with.clone());
        fill(&mut with, known)?;
        let Value::Object(with) = with else { return None };
        let encode = known.iter().map(|(name, value)| (name.clone(), encoded(value))).collect();
        Some(Self { call: self.call.clone(), rest: text(&self.rest, &encode)?, with, ..Self::default() })
    }
}

fn fill(value: &mut Value, known: &Kept) -> Option<()> {
    match value {
        Value::String(s) => *s = text(s, known)?,
        Value::Array(list) => list.iter_mut().try_for_each(|one| fill(one, known))?,
        Value::Object(members) => members.values_mut().try_for_each(|one| fill(one, known))?,
        _ => {}
    }
    Some(())
}

fn text(pattern: &str, known: &Kept) -> Option<String> {
    let mut parts = pattern.split('$');
    let mut out = parts.next()?.to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(part.len());
        let (name, rest) = part.split_at(end);
        out.push_str(known.get(name)?);
        out.push_str(rest);
    }
    Some(out)
}

/// The result of a comparison.
#[derive(Debug, Default, Serialize)]
pub struct Outcome {
    /// Calls that both endpoints got.
    pub calls: usize,
    /// Calls with the same answer.
    pub alike: usize,
    /// Calls that weren't made to one endpoint, because it refused an earlier call on which they depend.
    pub skipped: Vec<String>,
    pub differences: Vec<Difference>,
    /// Lines of the table of known differences without a match.
    pub unseen: Vec<String>,
    /// Resources that couldn't be deleted from the other endpoint, and why.
    pub left: Vec<String>,
    /// True if the run was stopped before all calls were made.
    pub stopped: bool,
}

impl Outcome {
    pub fn unexplained(&self) -> impl Iterator<Item = &Difference> {
        self.differences.iter().filter(|d| d.known.is_none())
    }
}

/// Makes the same calls to the sandbox at `sandbox` and to the endpoint at `other`, until `stop` is ready. `other` is
/// `None`: AWS itself, with the environment's credentials.
///
/// # Errors
/// [`Class::Unreachable`] if `other` doesn't answer as AWS does; [`Class::Denied`] without credentials for it.
pub async fn run(sandbox: &str, other: Option<&str>, stop: impl Future<Output = ()>) -> Result<Outcome> {
    let table: Table =
        serde_yaml::from_str(CALLS).map_err(|e| Error::bug(format!("the table of calls can't be read: {e}")))?;
    // Unique names for the resources of this run.
    let run = format!("{:x}", Clock::timestamp().as_millisecond());
    let side = async |url| Ok::<_, Error>(Side::new(Endpoint::new(url).await?, &run, &table));
    let mut sides = [side(Some(sandbox)).await?, side(other).await?];
    let identity = Call { call: "sts:GetCallerIdentity".to_owned(), ..Call::default() };
    match sides[1].endpoint.ask(&identity).await {
        Answer::Done(value) if found(&value, "Account").is_some() => {}
        answer => {
            let name = sides[1].endpoint.name();
            let why = match answer {
                Answer::Done(_) => "it isn't AWS's protocol".to_owned(),
                Answer::Refused(why) | Answer::Lost(why) => why,
            };
            return Err(Error::new(Class::Unreachable, format!("{name} doesn't say who asks: {why}"))
                .operation("sts:GetCallerIdentity")
                .help("give the address of something that speaks AWS's protocols, such as http://127.0.0.1:5000"));
        }
    }
    let mut outcome = Outcome::default();
    let asked = tokio::select! {
        () = ask_all(&table, &mut sides, &mut outcome) => true,
        () = stop => false,
    };
    outcome.stopped = !asked;
    outcome.left = sides[1].clean_up().await;
    let rows = Row::all();
    let mut seen = vec![false; rows.len()];
    for difference in &mut outcome.differences {
        if let Some((row, seen)) = rows.iter().zip(&mut seen).find(|(row, _)| row.explains(difference)) {
            *seen = true;
            difference.known = Some(row.why().to_owned());
        }
    }
    outcome.unseen = rows.iter().zip(seen).filter(|(_, seen)| !seen).map(|(row, _)| row.title()).collect();
    Ok(outcome)
}

async fn ask_all(table: &Table, sides: &mut [Side; 2], outcome: &mut Outcome) {
    let [sandbox, other] = sides;
    for call in &table.calls {
        let name = call.name();
        let (Some(one), Some(two)) = (call.filled(&sandbox.known), call.filled(&other.known)) else {
            outcome.skipped.push(name);
            continue;
        };
        let (one, two) = (sandbox.ask(call, one).await, other.ask(call, two).await);
        // A resource that one endpoint refused and the other one made is deleted at once, so that both have the same
        // resources for the next calls.
        if let (Answer::Refused(_), Answer::Done(_), Some(_)) = (&one, &two, &call.undo)
            && let Some(undo) = other.undo.last()
            && let Answer::Done(_) = other.endpoint.ask(undo).await
        {
            other.undo.pop();
        }
        outcome.calls += 1;
        let found = differences(&name, (&one, &sandbox.known), (&two, &other.known));
        outcome.alike += usize::from(found.is_empty());
        outcome.differences.extend(found);
    }
}

/// One endpoint, with the state of the calls so far.
struct Side {
    endpoint: Endpoint,
    known: Kept,
    /// Calls that delete the created resources. They are made in reverse order.
    undo: Vec<Call>,
    /// Calls that may have made a resource whose id isn't known.
    unclear: Vec<String>,
    clock: Clock,
}

impl Side {
    fn new(endpoint: Endpoint, run: &str, table: &Table) -> Self {
        let own = [
            ("run", run.to_owned()),
            ("url", endpoint.name().to_owned()),
            ("region", REGION.to_owned()),
            ("zone1", format!("{REGION}a")),
            ("zone2", format!("{REGION}b")),
        ];
        let mut known: Kept = own.map(|(name, value)| (name.to_owned(), value)).into();
        for (name, value) in &table.values {
            if let Some(value) = text(value, &known) {
                known.insert(name.clone(), value);
            }
        }
        Self { endpoint, known, undo: Vec::new(), unclear: Vec::new(), clock: Clock::real() }
    }

    /// `asked` is `call` with values in place of names.
    async fn ask(&mut self, call: &Call, asked: Call) -> Answer {
        let answer = self.answered(call, &asked).await;
        match &answer {
            Answer::Done(value) => {
                self.undo.retain(|undo| *undo != asked);
                let kept = call.keep.iter().filter_map(|(name, path)| Some((name.clone(), found(value, path)?)));
                self.known.extend(kept);
            }
            Answer::Refused(_) => return answer,
            Answer::Lost(why) if !call.keep.is_empty() => {
                self.unclear.push(format!("perhaps a resource that {} made: {why}", call.name()));
            }
            Answer::Lost(_) => {}
        }
        self.undo.extend(call.undo.as_ref().and_then(|undo| undo.filled(&self.known)));
        answer
    }

    async fn answered(&self, call: &Call, asked: &Call) -> Answer {
        let clock = self.clock.clone();
        let mut patience = Patience::new(&clock, self.patience()).with(Pauses::doubling(Duration::from_millis(20)));
        loop {
            let answer = self.endpoint.ask(asked).await;
            let Some((path, wanted)) = &call.until else { return answer };
            let there = match &answer {
                Answer::Done(value) => found(value, path).as_ref() == Some(wanted),
                // An error stays an error: waiting doesn't help.
                Answer::Refused(_) | Answer::Lost(_) => true,
            };
            if there || !patience.wait().await {
                return answer;
            }
        }
    }

    fn patience(&self) -> Duration {
        if self.endpoint.url.is_some() { PATIENCE } else { AWS_PATIENCE }
    }

    /// Deletes the resources that the calls made. Returns those that couldn't be deleted.
    async fn clean_up(&mut self) -> Vec<String> {
        let clock = self.clock.clone();
        let mut patience = Patience::new(&clock, self.patience()).with(Pauses::doubling(Duration::from_millis(100)));
        loop {
            let mut left = self.unclear.clone();
            for call in std::mem::take(&mut self.undo).into_iter().rev() {
                let why = match self.endpoint.ask(&call).await {
                    Answer::Refused(code) if !is_gone(&code) => code,
                    Answer::Lost(why) => why,
                    Answer::Done(_) | Answer::Refused(_) => continue,
                };
                left.push(format!("{} {} {}: {why}", call.call, call.rest, Value::Object(call.with.clone())));
                self.undo.insert(0, call);
            }
            // Resources may block each other's deletion, or take time to be deleted. So failed deletions are repeated.
            if self.undo.is_empty() || !patience.wait().await {
                return left;
            }
        }
    }
}

/// True if an error says that the resource doesn't exist any more.
fn is_gone(code: &str) -> bool {
    ["NotFound", "NoSuchEntity", "KMSInvalidState", "Gateway.NotAttached"].iter().any(|part| code.contains(part))
}

/// The text at `path`. In a list, the first item counts.
fn found(value: &Value, path: &str) -> Option<String> {
    let first = |value: &Value| match value {
        Value::Array(list) => list.first().cloned(),
        other => Some(other.clone()),
    };
    let end = path.split('.').try_fold(value.clone(), |at, name| first(&at)?.get(name).cloned())?;
    match first(&end)? {
        Value::String(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}
