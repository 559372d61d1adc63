//! The state of a sandbox in a form in which two estates can be compared, even if they were made in a different order.
//! Ids are replaced by the address of their resource. Times, addresses of interfaces and random names are replaced by a
//! word.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::{Captures, Regex};
use ringfence::sandbox::Server;
use serde_json::{Map, Value};

/// Longer than AWS keeps traces of deleted resources: client tokens, NAT gateways, keys until their waiting period
/// ends.
const AFTERLIFE: f64 = 40.0 * 86_400.0;

/// The state of the server after all transitions have ended.
pub fn settled(server: &Server) -> Estate {
    server.advance(AFTERLIFE);
    Estate::of(server.dump())
}

#[derive(Debug, PartialEq)]
pub struct Estate(Value);

static ID: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\b([a-z][a-z-]*)-0[0-9a-f]{16}\b").unwrap());
static UUID: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\b[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\b").unwrap());
/// IAM's unique ids, and the ids of OIDC issuers.
static UNIQUE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\b(A[A-Z]{3}[A-Z2-7]{17}|[0-9A-F]{32})\b").unwrap());
static TIME: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)").unwrap());
/// IP and MAC addresses of interfaces and NAT gateways, which depend on the order of creation.
static PLACE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\b((54|10)\.\d+\.\d+\.\d+\b(?:[^/]|$)|ip-10-\d+-\d+-\d+|([0-9a-f]{2}:){5}[0-9a-f]{2})").unwrap()
});
/// Ids of Pod Identity associations, and names of security groups that EKS makes.
static OF_EKS: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(eks-cluster-sg-[a-z0-9-]+-|\ba-)[0-9a-z]{10}(?:[0-9a-z]{7})?\b").unwrap());
/// The length of the shortest match of `UNIQUE`, which may have no digit.
const SHORTEST: usize = 21;
static ENDPOINT: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"vpce-[^.]+\.").unwrap());

impl Estate {
    fn of(mut dump: Value) -> Self {
        for account in dump.as_object_mut().unwrap().values_mut() {
            account["sts"].take();
            for region in account["regions"].as_object_mut().into_iter().flatten().map(|(_, region)| region) {
                for (service, what) in [("ec2", "tokens"), ("ec2", "due"), ("eks", "tokens")] {
                    region[service][what].take();
                }
                let parameters = region["ssm"]["parameters"].as_object_mut().unwrap();
                parameters.retain(|name, _| !name.contains("/lock/"));
            }
        }
        let mut names = BTreeMap::new();
        name(&dump, None, &mut names);
        Self(normal(&dump, &names))
    }

    /// Addresses, with the number of times that each occurs in tags.
    pub fn addresses(&self) -> BTreeMap<String, usize> {
        let mut all = BTreeMap::new();
        count(&self.0, &mut all);
        all
    }

    /// The differences of two estates, as lines of text.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut all = Vec::new();
        differ(&self.0, &other.0, "", &mut all);
        all
    }
}

/// Collects the addresses of ids: an object with our tags gets its address as name.
fn name(value: &Value, key: Option<&str>, names: &mut BTreeMap<String, String>) {
    let Value::Object(members) = value else {
        if let Value::Array(list) = value {
            list.iter().for_each(|one| name(one, None, names));
        }
        return;
    };
    let pairs = members.get("tagSet").and_then(Value::as_array).into_iter().flatten();
    let tags: BTreeMap<&str, &str> = pairs.filter_map(|t| Some((t["key"].as_str()?, t["value"].as_str()?))).collect();
    let plain = |tag: &str| members.get("tags").and_then(|tags| tags[tag].as_str());
    let tag = |tag: &str| tags.get(tag).copied().or(plain(tag));
    if let (Some(key), Some(address)) = (key, tag("ringfence.dev/address")) {
        let generation = tag("ringfence.dev/generation").unwrap_or("none");
        names.insert(key.to_owned(), format!("<{address} {generation}>"));
    }
    members.iter().for_each(|(key, one)| name(one, Some(key), names));
}

fn normal(value: &Value, names: &BTreeMap<String, String>) -> Value {
    match value {
        Value::String(text) => Value::String(plain(text, names)),
        // Times are seconds.
        Value::Number(n) if n.as_f64().is_some_and(|n| n > 1e9) => "<time>".into(),
        Value::Array(list) => Value::Array(list.iter().map(|one| normal(one, names)).collect()),
        Value::Object(members) => {
            let mut all: Vec<(String, Value)> = members
                .iter()
                .filter(|(key, _)| {
                    !["uid", "resourceVersion", "certificateAuthority", "managedFields", "ids"].contains(&key.as_str())
                })
                .map(|(key, one)| (plain(key, names), normal(one, names)))
                // An empty member is the same as a missing one.
                .filter(|(_, one)| *one != Value::Null && one.as_object().is_none_or(|members| !members.is_empty()))
                .collect();
            all.sort_by(|(a, one), (b, other)| a.cmp(b).then_with(|| one.to_string().cmp(&other.to_string())));
            let mut object = Map::new();
            for (key, one) in all {
                // Objects without a name are numbered, after their kind.
                let same = (0..).map(|n| if n == 0 { key.clone() } else { format!("{key} {n}") });
                let free = same.into_iter().find(|key| !object.contains_key(key)).unwrap();
                object.insert(free, one);
            }
            Value::Object(object)
        }
        other => other.clone(),
    }
}

fn plain(text: &str, names: &BTreeMap<String, String>) -> String {
    let has_digits = text.bytes().any(|b| b.is_ascii_digit());
    // Most texts are words that no expression matches, and the expressions take much of the time of these tests.
    if !has_digits && !text.contains("vpce-") && !text.contains("a-") && !text.contains("sg-") && text.len() < SHORTEST
    {
        return text.to_owned();
    }
    // JSON documents in strings keep their order and are compared as text.
    let text = ENDPOINT.replace_all(text, "<endpoint>.");
    let text = OF_EKS.replace_all(&text, "$1<id>");
    let text = ID.replace_all(&text, |found: &Captures| {
        names.get(&found[0]).cloned().unwrap_or_else(|| format!("<{}>", &found[1]))
    });
    let text = UUID
        .replace_all(&text, |found: &Captures| names.get(&found[0]).cloned().unwrap_or_else(|| "<uuid>".to_owned()));
    let text = UNIQUE.replace_all(&text, "<unique>");
    let text = TIME.replace_all(&text, "<time>");
    PLACE.replace_all(&text, "<place>").into_owned()
}

fn count(value: &Value, all: &mut BTreeMap<String, usize>) {
    match value {
        Value::Object(members) => {
            let pair = members.get("key").and_then(Value::as_str) == Some("ringfence.dev/address");
            let address = if pair { members.get("value") } else { members.get("ringfence.dev/address") };
            if let Some(address) = address.and_then(Value::as_str) {
                *all.entry(address.to_owned()).or_default() += 1;
            }
            members.values().for_each(|one| count(one, all));
        }
        Value::Array(list) => list.iter().for_each(|one| count(one, all)),
        _ => {}
    }
}

fn differ(one: &Value, two: &Value, at: &str, all: &mut Vec<String>) {
    match (one, two) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                let at = format!("{at}/{key}");
                match (a.get(key), b.get(key)) {
                    (Some(a), Some(b)) => differ(a, b, &at, all),
                    (Some(only), None) => all.push(format!("only the first has {at}: {only}")),
                    (None, Some(only)) => all.push(format!("only the second has {at}: {only}")),
                    (None, None) => {}
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (n, (a, b)) in a.iter().zip(b).enumerate() {
                differ(a, b, &format!("{at}/{n}"), all);
            }
        }
        (a, b) if a != b => all.push(format!("{at}: {a} and {b}")),
        _ => {}
    }
}

#[test]
fn ids_and_times_make_no_difference_and_all_else_does() {
    let estate = |id: &str, created: f64, cidr: &str, address: &str| {
        let subnet = serde_json::json!({"vpcId": id, "cidrBlock": cidr, "created": created});
        let vpc = serde_json::json!({"tagSet": [{"key": "ringfence.dev/address", "value": address}]});
        let mut resources = Map::new();
        resources.insert(id.to_owned(), vpc);
        resources.insert(id.replace("vpc", "subnet"), subnet);
        Estate::of(serde_json::json!({"1": {"sts": {}, "regions": {"r": {
            "ec2": {"resources": resources}, "eks": {}, "ssm": {"parameters": {}},
        }}}}))
    };
    let one = estate("vpc-00c7de8064963bab0", 1_795_639_845.5, "10.64.0.0/16", "pool/a/vpc");
    assert_eq!(one, estate("vpc-0aaaaaaaaaaaaaaa0", 1_795_639_999.0, "10.64.0.0/16", "pool/a/vpc"));
    assert_eq!(one.addresses(), BTreeMap::from([("pool/a/vpc".to_owned(), 1)]));
    for other in [
        estate("vpc-00c7de8064963bab0", 1_795_639_845.5, "10.65.0.0/16", "pool/a/vpc"),
        estate("vpc-00c7de8064963bab0", 1_795_639_845.5, "10.64.0.0/16", "pool/b/vpc"),
    ] {
        assert_ne!(one.differences(&other), [] as [&str; 0]);
    }
}
