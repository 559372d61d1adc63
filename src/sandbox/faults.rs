//! Fault scripts simulate a bad network, an overloaded AWS and a client that dies. `docs/faults.md` documents the
//! format.
//!
//! A rule's count and chance depend on the seed and on the calls, never on time. So a script does the same to the same
//! calls in every run.

use super::fate::Rule as Resource;
use super::state::State;
use super::wire::{Fault, Service};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};

/// A script, as a user writes it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// Seed of the random draws of `rate` and `mixed`.
    #[serde(default)]
    seed: u64,
    /// The first rule that applies to a call decides.
    #[serde(default)]
    faults: Vec<Rule>,
    /// The first rule that matches an operation decides how it ends.
    #[serde(default)]
    resources: Vec<Resource>,
    /// Eventual consistency, by service or `*`: for so many simulated seconds, reads and the checks of other calls
    /// don't see a change.
    #[serde(default)]
    lag: BTreeMap<String, f64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// `service:Operation`, with `*` for any letters. Calls to clusters are `k8s:GET`, `k8s:PATCH` and so on, also with
    /// their path: `k8s:GET */namespaces`.
    #[serde(default = "any")]
    call: String,
    #[serde(default)]
    only: Only,
    /// Only this one of the matching calls, counted from 1.
    nth: Option<u64>,
    /// Only the first attempt of each distinct call. The retry gets through.
    #[serde(default)]
    first: bool,
    /// The probability, from 0 to 1.
    rate: Option<f64>,
    /// The rule applies at most so many times.
    times: Option<u64>,
    /// Only calls that find the token bucket empty. Each operation has a bucket of its own.
    over: Option<Tokens>,
    /// The call isn't carried out, and this happens instead.
    before: Option<What>,
    /// The call is carried out, and this happens in place of its answer.
    after: Option<What>,
    /// Either `before` or `after`, by chance.
    either: Option<What>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tokens {
    /// Size of the bucket: calls at once.
    burst: f64,
    /// Refill: calls in a simulated second.
    rate: f64,
}

pub fn any() -> String {
    "*".to_owned()
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Only {
    #[default]
    All,
    Changes,
    Reads,
}

/// A fault: the fate of a call.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// The connection closes without an answer.
    Drop,
    /// No answer, ever.
    Hang,
    /// The connection closes in the middle of the answer.
    Cut,
    /// A web page with status 200, 502 or 503, as proxies and load balancers send it.
    Html,
    /// The service's own throttling error.
    Throttle,
    /// Status 500 with the service's own error.
    Internal,
    /// Status 503 with the service's own error.
    Busy,
    /// One of the faults above, by chance.
    Mixed,
    /// The answer is late by so many simulated seconds.
    Delay(f64),
    Error(Told),
    /// The client counts as dead from now on: neither this call nor any later one is answered or carried out.
    Die,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Told {
    code: String,
    #[serde(default = "told")]
    message: String,
    #[serde(default = "bad_request")]
    status: u16,
}

pub fn told() -> String {
    "The fault script says so.".to_owned()
}

fn bad_request() -> u16 {
    400
}

impl Script {
    /// # Errors
    /// The script is invalid. The text names the rule and says why.
    pub fn parse(text: &str) -> Result<Self, String> {
        let script: Self = serde_yaml::from_str(text).map_err(|why| why.to_string())?;
        for (n, rule) in script.faults.iter().enumerate() {
            let ways = [&rule.before, &rule.after, &rule.either].iter().filter(|way| way.is_some()).count();
            let wrong = match rule {
                _ if ways != 1 => "needs one of `before`, `after` and `either`",
                Rule { rate: Some(rate), .. } if !(0.0..=1.0).contains(rate) => "has a rate that isn't from 0 to 1",
                Rule { nth: Some(0), .. } => "has an `nth` of 0; calls are counted from 1",
                _ => continue,
            };
            return Err(format!("fault {} (call: {}) {wrong}", n + 1, rule.call));
        }
        for (n, resource) in script.resources.iter().enumerate() {
            let named = |wrong| format!("resource {} (kind: {}) {wrong}", n + 1, resource.kind());
            resource.check().map_err(named)?;
        }
        let known = |name: &str| name == "*" || Service::from_signing_name(name).is_some();
        if let Some(name) = script.lag.keys().find(|name| !known(name)) {
            return Err(format!("lag: there is no service {name}"));
        }
        Ok(script)
    }

    pub fn resources(&self) -> Vec<Resource> {
        self.resources.clone()
    }
}

/// A call, as rules match it.
#[derive(Debug, Clone, Copy)]
pub struct Call<'c> {
    pub service: &'c str,
    pub operation: &'c str,
    /// True if the call only reads.
    pub reads: bool,
    /// The parameters, which distinguish it from other calls of its operation.
    pub params: &'c Value,
}

/// The decision of a rule about a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    pub done: bool,
    pub what: What,
}

/// A script with its counters.
#[derive(Debug, Default)]
pub struct Faults {
    script: Script,
    /// For each rule: the number of matching calls, and of those it applied to.
    counts: Vec<(u64, u64)>,
    /// For each rule and operation: the tokens left, and the time of that count.
    tokens: BTreeMap<(usize, String), (f64, f64)>,
    /// How often each distinct call was made. A repeated call is another random draw.
    drawn: BTreeMap<[u8; 32], u64>,
    judged: u64,
    /// The client counts as dead: no call is answered any more.
    dead: bool,
    past: Past,
}

impl Faults {
    pub fn new(script: Script) -> Self {
        Self { counts: vec![(0, 0); script.faults.len()], script, ..Self::default() }
    }

    pub fn is_dead(&self) -> bool {
        self.dead
    }

    /// The number of calls with a fault, and of all calls.
    pub fn struck(&self) -> (u64, u64) {
        (self.counts.iter().map(|(_, struck)| struck).sum(), self.judged)
    }

    pub fn judge(&mut self, call: &Call, now: f64) -> Option<Verdict> {
        self.judged += 1;
        if self.dead {
            return Some(Verdict { done: false, what: What::Die });
        }
        if self.script.faults.is_empty() {
            return None;
        }
        let name = format!("{}:{}", call.service, call.operation);
        let with_path = format!("{name} {}", call.params.get("path").and_then(Value::as_str).unwrap_or_default());
        let mut chance = Chance::of(self.script.seed, call, &mut self.drawn);
        let rules = self.script.faults.iter().zip(&mut self.counts);
        for (n, (rule, (seen, struck))) in rules.enumerate() {
            let fits = match rule.only {
                Only::All => true,
                Only::Changes => !call.reads,
                Only::Reads => call.reads,
            };
            let called = if rule.call.contains(' ') { &with_path } else { &name };
            if !fits || !matches(&rule.call, called) {
                continue;
            }
            *seen += 1;
            let spent = (rule.first && chance.times > 1) || rule.times.is_some_and(|times| *struck >= times);
            if spent || rule.nth.is_some_and(|nth| nth != *seen) || rule.rate.is_some_and(|rate| chance.draw() >= rate)
            {
                continue;
            }
            if let Some(Tokens { burst, rate }) = rule.over {
                let (left, since) = self.tokens.entry((n, name.clone())).or_insert((burst, now));
                *left = (*left + (now - *since) * rate).min(burst);
                *since = now;
                if *left >= 1.0 {
                    *left -= 1.0;
                    continue;
                }
            }
            *struck += 1;
            let done = rule.after.is_some() || (rule.either.is_some() && chance.draw() < 0.5);
            let what = [&rule.before, &rule.after, &rule.either].into_iter().flatten().next()?;
            let what = match what {
                What::Mixed => {
                    const ALL: [What; 7] =
                        [What::Throttle, What::Internal, What::Busy, What::Drop, What::Hang, What::Html, What::Cut];
                    ALL[(chance.draw() * ALL.len() as f64) as usize % ALL.len()].clone()
                }
                one => one.clone(),
            };
            self.dead |= what == What::Die;
            // A throttled call is never carried out.
            return Some(Verdict { done: done && what != What::Throttle, what });
        }
        None
    }

    /// By how many seconds a service's reads lag.
    pub fn lag(&self, service: &str) -> f64 {
        self.script.lag.get(service).or(self.script.lag.get("*")).copied().unwrap_or(0.0)
    }

    /// Keeps the state before a change, for reads that lag.
    pub fn remember(&mut self, now: f64, state: &State) {
        let longest = self.script.lag.values().copied().fold(0.0, f64::max);
        if longest > 0.0 {
            self.past.keep(now, longest, state);
        }
    }

    /// The older state that a lagging service sees now. `None`: the present state.
    pub fn past(&self, service: &str, now: f64) -> Option<State> {
        let lag = self.lag(service);
        if lag > 0.0 { self.past.at(now - lag).cloned() } else { None }
    }
}

/// Former states, each with the time of the change that ended it.
#[derive(Debug, Default)]
struct Past(VecDeque<(f64, State)>);

impl Past {
    fn keep(&mut self, now: f64, longest: f64, state: &State) {
        while self.0.front().is_some_and(|(until, _)| *until < now - longest) {
            self.0.pop_front();
        }
        self.0.push_back((now, state.clone()));
    }

    /// The state at `then`: the oldest one whose end is later.
    fn at(&self, then: f64) -> Option<&State> {
        self.0.iter().find(|(until, _)| *until > then).map(|(_, state)| state)
    }
}

/// Random draws. They depend on the seed, the call, and how often the call was made.
struct Chance {
    seed: [u8; 32],
    /// How often the call was made, including this time.
    times: u64,
    draws: u8,
}

impl Chance {
    fn of(seed: u64, call: &Call, drawn: &mut BTreeMap<[u8; 32], u64>) -> Self {
        let mut hash = Sha256::new();
        hash.update(seed.to_be_bytes());
        hash.update(call.service);
        hash.update(call.operation);
        hash.update(call.params.to_string());
        let key: [u8; 32] = hash.clone().finalize().into();
        let times = drawn.entry(key).or_default();
        *times += 1;
        hash.update(times.to_be_bytes());
        Self { seed: hash.finalize().into(), times: *times, draws: 0 }
    }

    /// A number from 0 (included) to 1 (excluded).
    fn draw(&mut self) -> f64 {
        self.draws += 1;
        let digest: [u8; 32] = Sha256::new().chain_update(self.seed).chain_update([self.draws]).finalize().into();
        let bits = digest.iter().take(6).fold(0_u64, |all, byte| (all << 8) | u64::from(*byte));
        bits as f64 / (1_u64 << 48) as f64
    }
}

/// Whether a name matches a pattern. `*` stands for any characters.
pub fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut exact = true;
    let mut last = "";
    for part in parts {
        exact = false;
        last = part;
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    if exact { rest.is_empty() } else { rest.is_empty() || name.ends_with(last) }
}

impl What {
    /// The service's own error for this fault. `None` if the fault is no error of the service.
    pub fn fault(&self, service: Service) -> Option<Fault> {
        use Service::{Ec2, Eks, Iam, Kms, Logs, Quotas, Ssm, Sts};
        Some(match self {
            // EC2 API, "Request throttling"; each service's "Common error types".
            Self::Throttle => {
                let (status, code) = match service {
                    Ec2 => (503, "RequestLimitExceeded"),
                    Iam | Sts => (400, "Throttling"),
                    Eks => (429, "ThrottlingException"),
                    Kms | Logs | Ssm => (400, "ThrottlingException"),
                    Quotas => (400, "TooManyRequestsException"),
                };
                Fault::new(status, code, "Rate exceeded")
            }
            Self::Internal => {
                let code = match service {
                    Ec2 => "InternalError",
                    Iam | Sts => "ServiceFailure",
                    Eks => "ServerException",
                    Kms => "KMSInternalException",
                    Logs => "InternalFailure",
                    Ssm => "InternalServerError",
                    Quotas => "ServiceException",
                };
                Fault::new(500, code, "An internal error has occurred")
            }
            Self::Busy => {
                let code = match service {
                    Ec2 => "Unavailable",
                    Iam | Sts => "ServiceUnavailable",
                    Eks | Logs => "ServiceUnavailableException",
                    Kms => "DependencyTimeoutException",
                    Ssm | Quotas => "ServiceUnavailable",
                };
                Fault::new(503, code, "The server is overloaded and can't handle the request.")
            }
            Self::Error(Told { code, message, status }) => Fault::new(*status, code, message.clone()),
            _ => return None,
        })
    }

    /// The same for a Kubernetes API server: HTTP status and `Status` object.
    pub fn status(&self) -> Option<(u16, Value)> {
        let (code, reason, message) = match self {
            Self::Throttle => (429, "TooManyRequests", "the server has received too many requests"),
            Self::Internal => (500, "InternalError", "Internal error occurred: etcdserver: request timed out"),
            Self::Busy => (503, "ServiceUnavailable", "the server is currently unable to handle the request"),
            Self::Error(Told { code, message, status }) => (*status, code.as_str(), message.as_str()),
            _ => return None,
        };
        let body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "code": code,
        });
        Some((code, body))
    }
}

/// True if a refusal is about other resources that the call refers to. Eventual consistency can cause it (EC2 API,
/// "Eventual consistency"; IAM user guide, "Changes that I make are not always immediately visible").
pub fn is_about_others(fault: &Fault) -> bool {
    let code = fault.code.as_str();
    code.contains("NotFound")
        || ["NoSuchEntity", "DependencyViolation", "DeleteConflict", "ResourceInUseException"].contains(&code)
        || ["InvalidParameterException", "InvalidRequestException", "InvalidParameter", "MalformedPolicyDocument"]
            .contains(&code)
        // CloudWatch Logs says this of a key. It isn't about the caller's permissions.
        || fault.message.starts_with("The specified KMS key does not exist")
}

/// The answer of a proxy: always the same page, with different statuses.
pub fn page(params: &Value) -> (u16, Vec<u8>) {
    const STATUS: [(u16, &str); 3] = [(200, "Sign in"), (502, "Bad Gateway"), (503, "Service Unavailable")];
    let at = Sha256::digest(params.to_string()).first().map_or(0, |byte| usize::from(*byte)) % STATUS.len();
    let (status, title) = STATUS[at];
    let html =
        format!("<!DOCTYPE html>\n<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>\n");
    (status, html.into_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn call<'c>(operation: &'c str, params: &'c Value) -> Call<'c> {
        Call { service: "ec2", operation, reads: operation.starts_with("Describe"), params }
    }

    fn struck(script: &str, calls: &[(&str, Value)]) -> Vec<bool> {
        let mut faults = Faults::new(Script::parse(script).unwrap());
        calls.iter().map(|(operation, params)| faults.judge(&call(operation, params), 0.0).is_some()).collect()
    }

    #[test]
    fn names_match_with_stars() {
        for (pattern, name, fits) in [
            ("*", "ec2:CreateVpc", true),
            ("ec2:CreateVpc", "ec2:CreateVpc", true),
            ("ec2:CreateVpc", "ec2:CreateVpcEndpoint", false),
            ("ec2:*", "ec2:CreateVpc", true),
            ("*:Create*", "eks:CreateCluster", true),
            ("*:Create*", "eks:DescribeCluster", false),
            ("*:*Cluster", "eks:CreateCluster", true),
            ("*:*Cluster", "eks:CreateClusters", false),
            ("*Cluster*", "eks:CreateClusters", true),
            ("*e:*e", "e:e", true),
            ("a*a", "a", false),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn the_nth_call_is_struck_and_no_other() {
        let calls =
            [("CreateVpc", json!({})), ("DescribeVpcs", json!({})), ("CreateVpc", json!({})), ("CreateVpc", json!({}))];
        let script = "faults: [{call: 'ec2:*', only: changes, nth: 2, after: drop}]";
        assert_eq!(struck(script, &calls), [false, false, true, false]);
        let script = "faults: [{only: changes, first: true, after: drop}]";
        assert_eq!(struck(script, &calls), [true, false, false, false]);
        let script = "faults: [{call: 'ec2:*', times: 2, before: throttle}]";
        assert_eq!(struck(script, &calls), [true, true, false, false]);
    }

    #[test]
    fn what_goes_beyond_the_tokens_is_struck() {
        let mut faults =
            Faults::new(Script::parse("faults: [{over: {burst: 2, rate: 0.5}, before: throttle}]").unwrap());
        let params = json!({});
        let mut at = |now: f64, operation| faults.judge(&call(operation, &params), now).is_some();
        assert_eq!(
            [0.0, 0.0, 0.0, 1.0, 2.0, 2.0].map(|now| at(now, "CreateVpc")),
            [false, false, true, true, false, true]
        );
        assert!(!at(2.0, "CreateSubnet"), "each operation has its own");
    }

    #[test]
    fn chance_follows_the_seed_and_the_call() {
        let calls: Vec<_> = (0..1000).map(|n| ("CreateTags", json!({"n": n % 500}))).collect();
        let some = |seed: u64| struck(&format!("{{seed: {seed}, faults: [{{rate: 0.2, either: mixed}}]}}"), &calls);
        let count = some(1).iter().filter(|hit| **hit).count();
        assert!((150..250).contains(&count), "{count}");
        assert_eq!(some(1), some(1));
        assert_ne!(some(1), some(2));
        // A repeated call is another random draw.
        assert_ne!(some(1)[..500], some(1)[500..]);
    }

    #[test]
    fn after_death_nothing_is_answered() {
        let calls = [("CreateVpc", json!({})), ("DescribeVpcs", json!({}))];
        assert_eq!(struck("faults: [{nth: 1, after: die}]", &calls), [true, true]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (script, said) in [
            ("faults: [{call: x}]", "fault 1 (call: x) needs one of"),
            ("faults: [{rate: 2, after: drop}]", "isn't from 0 to 1"),
            ("faults: [{nth: 0, after: drop}]", "calls are counted from 1"),
            ("faults: [{after: explode}]", "explode"),
            ("fault: []", "fault"),
            ("lag: {s3: 1}", "there is no service s3"),
            ("resources: [{kind: eks:pod, stuck: true}]", "kinds are eks:cluster, eks:nodegroup"),
            (
                "resources: [{kind: ec2:natgateway, ends: FAILED}]",
                "can't end with the status FAILED; possible statuses are failed",
            ),
            ("resources: [{kind: eks:addon}]", "needs one of `ends`, `slower` and `stuck`"),
            ("resources: [{kind: eks:addon, slower: -1}]", "isn't a number above 0"),
        ] {
            let why = Script::parse(script).unwrap_err();
            assert!(why.contains(said), "{script}: {why}");
        }
    }
}
