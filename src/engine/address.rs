//! The identity of a resource within a tenancy.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A resource's public name, such as `tenant/12345/silo/vpc` or `pool/shared-1/cluster`. It consists of parts with
/// slashes between them. A part has letters, digits and `-._:+@`. Any other character is written as `=` and the two
/// hexadecimal digits of each of its bytes, so that different names stay different.
///
/// The first two parts are the [`Owner`]. Addresses are written into tags, and EKS and IAM allow only these
/// characters in tag values. Users see addresses. A change of the format needs a table of moved addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(Arc<str>);

/// The owner of a resource: the unit of selection, grouping and counting.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Owner {
    /// Shared by the whole tenancy, such as service-linked roles.
    Tenancy,
    /// A pool cluster, by name.
    Pool(String),
    /// A tenant, by id.
    Tenant(String),
}

impl Address {
    /// An address from its text. [`part`] encodes any name as a part.
    pub fn new(text: impl AsRef<str>) -> Self {
        Self(escaped(text.as_ref(), |c| matches!(c, '/' | '=')).into())
    }

    /// This address with one more part.
    pub fn join(&self, part: impl AsRef<str>) -> Self {
        Self::new(format!("{}/{}", self.0, part.as_ref()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn owner(&self) -> Owner {
        let mut parts = self.0.splitn(3, '/');
        match (parts.next(), parts.next()) {
            (Some("tenant"), Some(id)) => Owner::Tenant(id.to_owned()),
            (Some("pool"), Some(name)) => Owner::Pool(name.to_owned()),
            _ => Owner::Tenancy,
        }
    }

    /// The address without its owner: `silo/vpc` for `tenant/12345/silo/vpc`.
    pub fn local(&self) -> &str {
        match self.owner() {
            Owner::Tenancy => self.0.strip_prefix("tenancy/").unwrap_or(&self.0),
            _ => self.0.splitn(3, '/').nth(2).unwrap_or(&self.0),
        }
    }
}

impl Address {
    /// The place of the resource: a pool (`pool/shared-1`), or a placement of a tenant (`tenant/12345/silo`,
    /// `tenant/23456/pool/shared-1`). A tenant that moves has two placements.
    pub fn place(&self) -> Self {
        let Owner::Tenant(id) = self.owner() else { return Self::new(self.owner().to_string()) };
        let mut parts = self.local().split('/');
        match (parts.next().unwrap_or_default(), parts.next()) {
            (model @ ("pool" | "fargate"), Some(pool)) => Self::new(format!("tenant/{id}/{model}/{pool}")),
            (model, _) => Self::new(format!("tenant/{id}/{model}")),
        }
    }

    /// The pool of a tenant's placement. `None` for other addresses.
    pub fn pool(&self) -> Option<Self> {
        let mut parts = self.local().split('/');
        match (self.owner(), parts.next(), parts.next()) {
            (Owner::Tenant(_), Some("pool" | "fargate"), Some(pool)) => Some(Self::new(format!("pool/{pool}"))),
            _ => None,
        }
    }

    /// True for `other` itself and for addresses below it.
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.strip_prefix(&*other.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// `name` as one part of an address.
pub fn part(name: &str) -> String {
    escaped(name, |_| false)
}

fn escaped(text: &str, kept: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '.' | '_' | ':' | '+' | '@' => out.push(c),
            _ if kept(c) => out.push(c),
            _ => out.extend(c.encode_utf8(&mut [0; 4]).bytes().map(|byte| format!("={byte:02x}"))),
        }
    }
    out
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(text.into()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenancy => f.write_str("tenancy"),
            Self::Pool(name) => write!(f, "pool/{name}"),
            Self::Tenant(id) => write!(f, "tenant/{id}"),
        }
    }
}
