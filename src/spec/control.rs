//! The isolation controls. Plans, reports and waivers name them by stable IDs.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! controls {
    ($($variant:ident $id:literal $title:literal)*) => {
        /// One isolation measure.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Control {
            $(#[doc = concat!($id, ": ", $title)] $variant,)*
        }

        impl Control {
            /// Every control, in the order of the requirements.
            pub const ALL: &'static [Control] = &[$(Control::$variant,)*];

            /// The stable ID, such as `NET-2`.
            pub const fn id(self) -> &'static str {
                match self { $(Control::$variant => $id,)* }
            }

            /// The control in a few words.
            pub const fn title(self) -> &'static str {
                match self { $(Control::$variant => $title,)* }
            }
        }
    };
}

controls! {
    SiloCluster "SILO-1" "a cluster of its own for each silo tenant"
    SiloSeparation "SILO-2" "no access from one silo to another"
    NodeTaint "NODE-1" "dedicated, tainted nodes for each pool tenant"
    NodeSelector "NODE-2" "pods are pinned to their tenant's nodes"
    FargateProfile "NODE-3" "a Fargate profile that matches only its tenant"
    NodeAuthorization "NODE-4" "nodes read only what their own pods need"
    ApiAccess "API-1" "no direct tenant access to the Kubernetes and EKS APIs"
    Namespace "NS-1" "one namespace for each tenant, and RBAC only in it"
    TenantLabel "NS-2" "every object carries its tenant's label"
    PodPrivileged "POD-1" "no privileged containers"
    PodCapabilities "POD-2" "capabilities from the permitted list only"
    PodNonRoot "POD-3" "never root; user and group IDs of the tenant's range"
    PodHostPath "POD-4" "no host paths"
    PodHostNamespaces "POD-5" "no host network, PID or IPC"
    PodSeccomp "POD-6" "seccomp profiles on every pod"
    PodSelinux "POD-7" "SELinux labels that no tenant chooses"
    NetworkPolicy "NET-1" "default-deny network policies, and no access to IMDS"
    Imds "NET-2" "IMDSv2 required, hop limit 1"
    ExternalIps "NET-3" "no Services with external IPs"
    StatusPatch "NET-4" "no patching of status"
    PodSecurity "ADM-1" "pods are checked on admission"
    PolicyAgent "ADM-2" "the same rules by OPA or Gatekeeper"
    Registries "ADM-3" "images from trusted registries only"
    HostOs "HOST-1" "nodes that enforce SELinux"
    Firecracker "HOST-2" "Firecracker-isolated compute"
    Quota "QUOTA-1" "confined compute"
    Automation "OPS-1" "automated operation at a known cost"
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

impl FromStr for Control {
    type Err = String;

    /// Accepts an exact ID only.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|c| c.id() == text).ok_or_else(|| format!("there is no control {text:?}"))
    }
}

impl Serialize for Control {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}

impl<'de> Deserialize<'de> for Control {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Control {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Control".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let ids: Vec<&str> = Self::ALL.iter().map(|c| c.id()).collect();
        json_schema!({ "description": "The ID of an isolation control.", "type": "string", "enum": ids })
    }
}
