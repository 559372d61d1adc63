//! Systems Manager: the parameter store, and AWS's public parameters with the ids of node images.

use super::eks::versions::{self, IMAGES};
use super::pages::{self, Pages};
use super::state::State;
use super::tags::{Tags, check_tag};
use super::wire::{Fault, Reply, Request, texts};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Ssm {
    parameters: BTreeMap<String, Parameter>,
}

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Parameter {
    kind: String,
    description: Option<String>,
    tier: String,
    data_type: String,
    key: Option<String>,
    /// The values of versions 1, 2, … in order; the last is the present one.
    values: Vec<String>,
    /// When the last version was written (unix seconds).
    modified: f64,
    modified_by: String,
    tags: Tags,
}

pub fn call(state: &mut State, req: &Request) -> Reply {
    state.region(&req.account, &req.region).ssm.call(req)
}

impl Ssm {
    fn call(&mut self, req: &Request) -> Reply {
        match req.operation.as_str() {
            "PutParameter" => self.put(req),
            "GetParameter" => Ok(json!({"Parameter": self.get(req, &required(req, "Name")?)?})),
            "GetParameters" => {
                let names = names(req)?;
                let found: Vec<(String, Option<Value>)> =
                    names.into_iter().map(|name| (name.clone(), self.get(req, &name).ok())).collect();
                Ok(json!({
                    "Parameters": found.iter().filter_map(|(_, wire)| wire.clone()).collect::<Value>(),
                    "InvalidParameters": found.iter().filter(|(_, wire)| wire.is_none()).map(|(name, _)| name.as_str()).collect::<Value>(),
                }))
            }
            "GetParametersByPath" => {
                let path = required(req, "Path")?;
                if !path.starts_with('/') {
                    return Err(validation(
                        "The parameter doesn't meet the parameter name requirements. The parameter name must begin with a forward slash \"/\".",
                    ));
                }
                let under = format!("{}/", path.trim_end_matches('/'));
                let recursive = req.params["Recursive"] == true;
                let inside =
                    |name: &str| name.strip_prefix(&under).is_some_and(|rest| recursive || !rest.contains('/'));
                let found: Vec<_> = self.parameters.keys().filter(|name| inside(name)).cloned().collect();
                let found = found.into_iter().filter_map(|name| self.get(req, &name).ok().map(|wire| (name, wire)));
                paged(req, found, 10)
            }
            "DescribeParameters" => {
                let filters = [req.items("ParameterFilters"), req.items("Filters")].concat();
                let mut found = Vec::new();
                for (name, parameter) in &self.parameters {
                    let mut wanted = true;
                    for filter in &filters {
                        wanted &= parameter.passes(name, filter)?;
                    }
                    if wanted {
                        found.push((name.clone(), parameter.metadata(req, name)));
                    }
                }
                paged(req, found.into_iter(), 50)
            }
            "DeleteParameter" => {
                let name = required(req, "Name")?;
                self.parameters.remove(&name).map(|_| json!({})).ok_or_else(|| not_found(&name))
            }
            "DeleteParameters" => {
                let (gone, missing): (Vec<_>, Vec<_>) =
                    names(req)?.into_iter().partition(|name| self.parameters.remove(name).is_some());
                Ok(json!({"DeletedParameters": gone, "InvalidParameters": missing}))
            }
            "AddTagsToResource" => {
                let new = new_tags(req)?;
                let tags = &mut self.tagged(req)?.tags;
                let mut all = tags.clone();
                all.extend(new);
                if all.len() > 50 {
                    return Err(Fault::new(400, "TooManyTagsError", "A parameter can have 50 tags"));
                }
                *tags = all;
                Ok(json!({}))
            }
            "RemoveTagsFromResource" => {
                let keys = req.texts("TagKeys");
                self.tagged(req)?.tags.retain(|key, _| !keys.contains(key));
                Ok(json!({}))
            }
            "ListTagsForResource" => {
                let tags = self.tagged(req)?.tags.iter();
                Ok(json!({"TagList": tags.map(|(key, value)| json!({"Key": key, "Value": value})).collect::<Value>()}))
            }
            _ => Err(req.unknown_operation()),
        }
    }

    fn put(&mut self, req: &Request) -> Reply {
        let (name, value) = (required(req, "Name")?, required(req, "Value")?);
        check_name(&name)?;
        let overwrite = req.params["Overwrite"] == true;
        let tags = new_tags(req)?;
        if overwrite && !tags.is_empty() {
            return Err(validation(
                "Invalid request: tags and overwrite can't be used together. To create a parameter with tags, please remove overwrite flag. To update tags for an existing parameter, please use AddTagsToResource or RemoveTagsFromResource.",
            ));
        }
        let tier = match req.text("Tier").as_deref() {
            Some("Intelligent-Tiering") if value.len() > 4096 => "Advanced".to_owned(),
            None | Some("Intelligent-Tiering") => "Standard".to_owned(),
            Some(tier) => tier.to_owned(),
        };
        let most = if tier == "Advanced" { 8192 } else { 4096 };
        if value.len() > most {
            return Err(validation(&format!(
                "{tier} tier parameters support a maximum parameter value of {most} characters."
            )));
        }
        let old = self.parameters.get(&name);
        if old.is_some() && !overwrite {
            let message = "The parameter already exists. To overwrite this value, set the overwrite option in the request to true.";
            return Err(Fault::new(400, "ParameterAlreadyExists", message));
        }
        let kind = req.text("Type").or_else(|| old.map(|old| old.kind.clone()));
        let kind = kind.ok_or_else(|| validation("A parameter type is required when you create a parameter."))?;
        if !["String", "StringList", "SecureString"].contains(&kind.as_str()) {
            return Err(Fault::new(
                400,
                "UnsupportedParameterType",
                format!("The parameter type {kind} isn't supported."),
            ));
        }
        let parameter = self.parameters.entry(name).or_default();
        if parameter.values.is_empty() {
            parameter.tags = tags;
        }
        parameter.values.push(value);
        parameter.description = req.text("Description").or(parameter.description.take());
        parameter.key =
            (kind == "SecureString").then(|| req.text("KeyId").unwrap_or_else(|| "alias/aws/ssm".to_owned()));
        (parameter.kind, parameter.tier) = (kind, tier);
        parameter.data_type = req.text("DataType").unwrap_or_else(|| "text".to_owned());
        (parameter.modified, parameter.modified_by) = (req.now, req.caller.arn.clone());
        Ok(json!({"Version": parameter.values.len(), "Tier": parameter.tier}))
    }

    /// A parameter in wire form, by `name`, `name:version` or ARN.
    fn get(&self, req: &Request, asked: &str) -> Reply {
        let local = match asked.strip_prefix(&req.arn("parameter/")) {
            Some(path) if path.contains('/') => format!("/{path}"),
            Some(name) => name.to_owned(),
            None => asked.to_owned(),
        };
        let (name, selector) =
            local.split_once(':').map_or((local.as_str(), None), |(name, version)| (name, Some(version)));
        if name.starts_with("/aws/service/") {
            return public(req, name).ok_or_else(|| not_found(name));
        }
        let parameter = self.parameters.get(name).ok_or_else(|| not_found(name))?;
        let latest = parameter.values.len();
        let version = selector.map_or(Some(latest), |version| version.parse().ok());
        let value = version.and_then(|version| parameter.values.get(version.checked_sub(1)?));
        let Some((value, version)) = value.zip(version) else {
            let message = format!("Systems Manager could not find version {} of {name}.", selector.unwrap_or_default());
            return Err(Fault::new(400, "ParameterVersionNotFound", message));
        };
        let sealed = parameter.kind == "SecureString" && req.params["WithDecryption"] != true;
        let value = if sealed { STANDARD.encode(value) } else { value.clone() };
        let mut wire = json!({
            "Name": name, "Type": parameter.kind, "Value": value, "Version": version,
            "LastModifiedDate": parameter.modified, "ARN": arn(req, name), "DataType": parameter.data_type,
        });
        if let Some(selector) = selector {
            wire["Selector"] = format!(":{selector}").into();
        }
        Ok(wire)
    }

    fn tagged(&mut self, req: &Request) -> Result<&mut Parameter, Fault> {
        let kind = required(req, "ResourceType")?;
        if kind != "Parameter" {
            let message = format!("ringfence's sandbox has no resources of the type {kind}");
            return Err(Fault::new(400, "InvalidResourceType", message));
        }
        let name = required(req, "ResourceId")?;
        let message = || format!("The resource ID \"{name}\" is not valid. Verify that it exists.");
        self.parameters.get_mut(&name).ok_or_else(|| Fault::new(400, "InvalidResourceId", message()))
    }
}

impl Parameter {
    fn passes(&self, name: &str, filter: &Value) -> Result<bool, Fault> {
        let values = texts(filter, "Values");
        let option = filter["Option"].as_str();
        let test = |text: &str, default: &str| match option.unwrap_or(default) {
            "Equals" => values.iter().any(|value| value == text),
            "BeginsWith" => values.iter().any(|value| text.starts_with(value)),
            _ => values.iter().any(|value| text.contains(value)),
        };
        match filter["Key"].as_str().unwrap_or_default() {
            "Name" => Ok(test(name, "Equals")),
            "Type" => Ok(test(&self.kind, "Equals")),
            "Tier" => Ok(test(&self.tier, "Equals")),
            "Path" => Ok(values.iter().any(|path| {
                let under = format!("{}/", path.trim_end_matches('/'));
                let rest = name.strip_prefix(&under);
                rest.is_some_and(|rest| option == Some("Recursive") || !rest.contains('/'))
            })),
            key => match key.strip_prefix("tag:") {
                Some(tag) => Ok(self.tags.get(tag).is_some_and(|value| values.is_empty() || test(value, "Equals"))),
                None => Err(Fault::new(400, "InvalidFilterKey", format!("ringfence's sandbox has no filter {key:?}"))),
            },
        }
    }

    fn metadata(&self, req: &Request, name: &str) -> Value {
        let mut wire = json!({
            "Name": name, "ARN": arn(req, name), "Type": self.kind, "LastModifiedDate": self.modified,
            "LastModifiedUser": self.modified_by, "Version": self.values.len(), "Tier": self.tier, "Policies": [],
            "DataType": self.data_type,
        });
        for (member, value) in [("Description", &self.description), ("KeyId", &self.key)] {
            if let Some(value) = value {
                wire[member] = value.as_str().into();
            }
        }
        wire
    }
}

/// A public parameter, such as `/aws/service/bottlerocket/aws-k8s-1.36/x86_64/latest/image_version`.
fn public(req: &Request, name: &str) -> Option<Value> {
    let parts: Vec<&str> = name.trim_start_matches('/').split('/').collect();
    let value = match parts.as_slice() {
        ["aws", "service", "bottlerocket", variant, arch @ ("x86_64" | "arm64"), version, field] => {
            let kubernetes = variant.strip_prefix("aws-k8s-")?;
            let (kubernetes, flavor) = kubernetes.split_once('-').unwrap_or((kubernetes, ""));
            if !["", "fips", "nvidia", "nvidia-fips"].contains(&flavor) {
                return None;
            }
            versions::find(kubernetes)?;
            let image = match *version {
                "latest" => IMAGES.last(),
                exact => IMAGES.iter().find(|image| **image == exact || image.split('-').next() == Some(exact)),
            }?;
            match *field {
                "image_version" => (*image).to_owned(),
                "image_id" => image_id(&format!("{variant}/{arch}/{image}/{}", req.region)),
                _ => return None,
            }
        }
        [
            "aws",
            "service",
            "eks",
            "optimized-ami",
            kubernetes,
            "amazon-linux-2023",
            arch @ ("x86_64" | "arm64"),
            flavor @ ("standard" | "nvidia" | "neuron"),
            "recommended",
            field,
        ] => {
            versions::find(kubernetes)?;
            match *field {
                "release_version" => versions::al2023(kubernetes),
                "image_id" => image_id(&format!("al2023/{kubernetes}/{arch}/{flavor}/{}", req.region)),
                _ => return None,
            }
        }
        _ => return None,
    };
    let arn = format!("arn:{}:ssm:{}::parameter{name}", req.partition(), req.region);
    Some(json!({
        "Name": name, "Type": "String", "Value": value, "Version": 1, "LastModifiedDate": versions::IMAGES_DATE,
        "ARN": arn, "DataType": "text",
    }))
}

/// An AMI's id, the same for the same image.
fn image_id(image: &str) -> String {
    use sha2::{Digest, Sha256};
    let digits: String = hex::encode(Sha256::digest(image)).chars().take(16).collect();
    format!("ami-0{digits}")
}

fn check_name(name: &str) -> Result<(), Fault> {
    let first = name.trim_start_matches('/').split('/').next().unwrap_or_default().to_ascii_lowercase();
    if name.to_ascii_lowercase().starts_with("/aws") {
        return Err(Fault::new(400, "AccessDeniedException", format!("No access to reserved parameter name: {name}.")));
    }
    if first.starts_with("aws") || first.starts_with("ssm") {
        return Err(validation("Parameter name: can't be prefixed with \"aws\" or \"ssm\" (case-insensitive)."));
    }
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-/".contains(c)) {
        return Err(validation(
            "Parameter name: can't contain special characters other than . - _ and /. A parameter name can't contain spaces.",
        ));
    }
    if name.contains('/') && !name.starts_with('/') {
        return Err(validation("Parameter name must be a fully qualified name."));
    }
    if name.matches('/').count() > 15 {
        let message = "A hierarchy can have a maximum of 15 levels.";
        return Err(Fault::new(400, "HierarchyLevelLimitExceededException", message));
    }
    if name.len() > 1011 {
        return Err(validation("Parameter name: can't be longer than 1011 characters."));
    }
    Ok(())
}

fn arn(req: &Request, name: &str) -> String {
    req.arn(&format!("parameter/{}", name.trim_start_matches('/')))
}

fn names(req: &Request) -> Result<Vec<String>, Fault> {
    let names = req.texts("Names");
    if !(1..=10).contains(&names.len()) {
        return Err(validation(
            "1 validation error detected: Value at 'names' failed to satisfy constraint: Member must have length less than or equal to 10",
        ));
    }
    Ok(names)
}

fn new_tags(req: &Request) -> Result<Tags, Fault> {
    let mut tags = Tags::new();
    for tag in req.items("Tags") {
        let of = |name: &str| tag[name].as_str().unwrap_or_default().to_owned();
        let (key, value) = (of("Key"), of("Value"));
        check_tag(&key, &value).map_err(|(at, rule)| validation(&format!("Tag {key:?}: {at}: {rule}")))?;
        tags.insert(key, value);
    }
    Ok(tags)
}

fn paged(req: &Request, all: impl Iterator<Item = (String, Value)>, most: usize) -> Reply {
    let pages = Pages { size: "MaxResults", token: "NextToken", next: "NextToken", usual: most, most };
    pages::paged(req, &pages, "Parameters", all).map_err(|why| validation(&why))
}

fn required(req: &Request, name: &str) -> Result<String, Fault> {
    req.text(name).ok_or_else(|| validation(&format!("{name} is required")))
}

fn not_found(name: &str) -> Fault {
    Fault::new(400, "ParameterNotFound", format!("Parameter {name} not found."))
}

fn validation(message: &str) -> Fault {
    Fault::new(400, "ValidationException", message)
}
