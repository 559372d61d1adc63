//! Launch templates and their versions.

use super::super::clock::iso8601;
use super::super::wire::{items, text};
use super::{Call, Doc, Ec2, Fault, LaunchTemplate, Reply, edit, fault, get, invalid, missing};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

const MAX_USER_DATA: usize = 16_384;

/// Lists whose wire names in request and response differ by more than an added `Set`: name of the list that holds it,
/// name in the request, name in the response. Source: the EC2 model, RequestLaunchTemplateData and
/// ResponseLaunchTemplateData.
const RENAMED: &[(&str, &str, &str)] = &[
    ("NetworkInterface", "SecurityGroupId", "groupSet"),
    ("SecondaryInterface", "PrivateIpAddress", "privateIpAddressesSet"),
    ("LaunchTemplateData", "LicenseSpecification", "licenseSet"),
];

const VERSION_FILTERS: &[(&str, &str)] = &[
    ("create-time", "createTime"),
    ("is-default-version", "defaultVersion"),
    ("ebs-optimized", "launchTemplateData.ebsOptimized"),
    ("image-id", "launchTemplateData.imageId"),
    ("instance-type", "launchTemplateData.instanceType"),
    ("http-tokens", "launchTemplateData.metadataOptions.httpTokens"),
    ("http-endpoint", "launchTemplateData.metadataOptions.httpEndpoint"),
];

/// The data of the request under the names of the response. No member is dropped.
fn answered(holder: &str, value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let renamed = members.iter().map(|(name, value)| {
                let special = RENAMED.iter().find(|(h, n, _)| *h == holder && n == name);
                let name_out = match special {
                    Some((_, _, out)) => (*out).to_owned(),
                    None => {
                        let mut chars = name.chars();
                        let first = chars.next().map(|c| c.to_ascii_lowercase());
                        let set = if value.is_array() { "Set" } else { "" };
                        first.into_iter().chain(chars).chain(set.chars()).collect()
                    }
                };
                (name_out, answered(name, value))
            });
            Value::Object(renamed.collect())
        }
        Value::Array(list) => list.iter().map(|value| answered(holder, value)).collect(),
        other => other.clone(),
    }
}

pub(super) fn no_such_name(name: &str) -> Fault {
    let message = format!("The specified launch template, with template name {name}, does not exist.");
    fault("InvalidLaunchTemplateName.NotFoundException", message)
}

fn number(doc: &Doc, name: &str) -> u64 {
    doc.get(name).and_then(Value::as_u64).unwrap_or_default()
}

/// Versions in ascending order; there is at least one.
fn versions(template: &Doc) -> impl Iterator<Item = &Doc> {
    super::list(template, "_versions").iter().filter_map(Value::as_object)
}

/// A version number from `$Latest`, `$Default`, nothing (the default) or digits.
fn version(template: &Doc, wanted: &str) -> Option<u64> {
    let number = match wanted {
        "$Latest" => number(template, "latestVersionNumber"),
        "$Default" | "" => number(template, "defaultVersionNumber"),
        digits => digits.parse().ok()?,
    };
    versions(template).any(|version| self::number(version, "versionNumber") == number).then_some(number)
}

impl Ec2 {
    /// Finds a launch template by id or name. `version` is a number, `$Latest`, `$Default` or empty (the default).
    pub fn launch_template(&self, id_or_name: &str, version: &str) -> Option<LaunchTemplate> {
        let (id, template) = self
            .of_kind("lt")
            .find(|(id, template)| *id == id_or_name || get(template, "launchTemplateName") == id_or_name)?;
        let wanted = self::version(template, version)?;
        let found = versions(template).find(|version| number(version, "versionNumber") == wanted)?;
        Some(LaunchTemplate {
            id: id.clone(),
            name: get(template, "launchTemplateName").to_owned(),
            version: wanted,
            data: found.get("launchTemplateData").cloned().unwrap_or_default(),
        })
    }
}

impl Call<'_> {
    /// The template that the request names by id or name.
    fn template(&self) -> Result<String, Fault> {
        match (self.req.text("LaunchTemplateId"), self.req.text("LaunchTemplateName")) {
            (Some(_), Some(_)) => {
                let message = "Specify either the launch template ID or the launch template name, but not both.";
                Err(fault("InvalidParameterCombination", message))
            }
            (Some(_), None) => self.existing("lt", "LaunchTemplateId"),
            (None, Some(name)) => {
                let found = self.ec2.with("lt", "launchTemplateName", &name).map(|(id, _)| id.clone()).next();
                found.ok_or_else(|| no_such_name(&name))
            }
            (None, None) => Err(missing("LaunchTemplateId")),
        }
    }

    fn version(&self, id: &str, wanted: &str) -> Result<u64, Fault> {
        version(self.ec2.find("lt", id)?, wanted).ok_or_else(|| {
            let message =
                format!("Could not find the specified version {wanted} for the launch template with ID {id}.");
            fault("InvalidLaunchTemplateId.VersionNotFound", message)
        })
    }

    fn data(&self) -> Result<Map<String, Value>, Fault> {
        let data = self.req.params.get("LaunchTemplateData").filter(|data| data.is_object());
        let data = data.ok_or_else(|| missing("LaunchTemplateData"))?;
        if let Some(user_data) = text(data, "UserData") {
            let bytes = BASE64
                .decode(user_data.trim())
                .map_err(|_| fault("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data."))?;
            if bytes.len() > MAX_USER_DATA {
                return Err(invalid(format!("User data is limited to {MAX_USER_DATA} bytes")));
            }
        }
        if let Some(limit) = data.get("MetadataOptions").and_then(|options| text(options, "HttpPutResponseHopLimit"))
            && !limit.parse::<u8>().is_ok_and(|limit| (1..=64).contains(&limit))
        {
            return Err(invalid(format!(
                "Value ({limit}) for parameter HttpPutResponseHopLimit is invalid. Expecting a value from 1 to 64."
            )));
        }
        for specification in items(data, "TagSpecification") {
            let of = text(specification, "ResourceType").unwrap_or_default();
            if !["instance", "volume", "network-interface", "spot-instances-request", "elastic-gpu"]
                .contains(&of.as_str())
            {
                return Err(invalid(format!("'{of}' is not a valid taggable resource type for this operation.")));
            }
        }
        Ok(super::doc(answered("LaunchTemplateData", data)))
    }

    pub(super) fn create_launch_template(&mut self) -> Reply {
        let id = self.once(|call| {
            let name = call.require("LaunchTemplateName")?;
            let valid = |c: char| c.is_ascii_alphanumeric() || "().-/_".contains(c);
            if !(3..=128).contains(&name.len()) || !name.chars().all(valid) {
                let message = format!("Launch template name '{name}' is malformed: 3 to 128 characters of a-zA-Z0-9().-/_");
                return Err(fault("InvalidLaunchTemplateName.MalformedException", message));
            }
            if call.ec2.with("lt", "launchTemplateName", &name).next().is_some() {
                let message = "Launch template name already in use.";
                return Err(fault("InvalidLaunchTemplateName.AlreadyExistsException", message));
            }
            let data = call.data()?;
            let body = json!({
                "launchTemplateName": name, "createTime": iso8601(call.req.now), "createdBy": call.req.caller.arn,
                "defaultVersionNumber": 1, "latestVersionNumber": 1, "_next": 2, "_versions": [call.new_version(1, data)],
            });
            call.create("lt", "launchTemplateId", body)
        })?;
        Ok(json!({"launchTemplate": self.shown(&id)}))
    }

    fn new_version(&self, number: u64, data: Map<String, Value>) -> Value {
        json!({
            "versionNumber": number, "versionDescription": self.req.text("VersionDescription"), "createTime": iso8601(self.req.now),
            "createdBy": self.req.caller.arn, "launchTemplateData": data,
        })
    }

    pub(super) fn create_launch_template_version(&mut self) -> Reply {
        let made = self.once(|call| {
            let id = call.template()?;
            let mut data = match call.req.text("SourceVersion") {
                Some(source) => {
                    let source = call.version(&id, &source)?.to_string();
                    call.ec2.launch_template(&id, &source).map(|template| super::doc(template.data)).unwrap_or_default()
                }
                None => Map::new(),
            };
            data.extend(call.data()?);
            let number = number(call.ec2.find("lt", &id)?, "_next");
            let version = call.new_version(number, data);
            let template = call.ec2.find_mut("lt", &id)?;
            edit(template, "_versions", |all| all.push(version));
            template.insert("latestVersionNumber".to_owned(), number.into());
            template.insert("_next".to_owned(), (number + 1).into());
            Ok(format!("{id}/{number}"))
        })?;
        let (id, number) = made.split_once('/').unwrap_or((&made, ""));
        let shown = self.versions(id, |version| version.to_string() == number)?.into_iter().next();
        Ok(json!({"launchTemplateVersion": shown.map(|(_, version)| version)}))
    }

    /// The wanted versions of a template in wire form. Their keys sort the newest version first.
    fn versions(&self, id: &str, wanted: impl Fn(u64) -> bool) -> Result<Vec<(String, Value)>, Fault> {
        let template = self.ec2.find("lt", id)?;
        let default = number(template, "defaultVersionNumber");
        let found = versions(template).filter(|version| wanted(number(version, "versionNumber"))).map(|version| {
            let number = number(version, "versionNumber");
            let mut shown = version.clone();
            // In the model, only the items of this list are named `groupId`.
            let interfaces = shown.get_mut("launchTemplateData").and_then(|data| data.get_mut("networkInterfaceSet"));
            for interface in interfaces.and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(groups) = interface.get_mut("groupSet") {
                    *groups = json!({"+groupId": groups});
                }
            }
            shown.insert("launchTemplateId".to_owned(), id.into());
            shown.insert("launchTemplateName".to_owned(), get(template, "launchTemplateName").into());
            shown.insert("defaultVersion".to_owned(), (number == default).into());
            (format!("{id}/{:020}", u64::MAX - number), Value::Object(shown))
        });
        Ok(found.collect())
    }

    pub(super) fn describe_launch_template_versions(&mut self) -> Reply {
        let filters = super::describe::Filters::of(self.req, VERSION_FILTERS)?;
        let wanted = self.req.texts("LaunchTemplateVersion");
        let one = self.req.text("LaunchTemplateId").or(self.req.text("LaunchTemplateName"));
        let mut found = Vec::new();
        if one.is_some() {
            let id = self.template()?;
            let numbers = wanted.iter().map(|wanted| self.version(&id, wanted)).collect::<Result<Vec<_>, _>>()?;
            let bound = |name: &str| self.req.text(name).map(|bound| self.version(&id, &bound)).transpose();
            let (min, max) = (bound("MinVersion")?, bound("MaxVersion")?);
            found = self.versions(&id, |number| {
                (numbers.is_empty() || numbers.contains(&number))
                    && min.is_none_or(|min| number >= min)
                    && max.is_none_or(|max| number <= max)
            })?;
        } else {
            if wanted.is_empty() || wanted.iter().any(|wanted| !["$Latest", "$Default"].contains(&wanted.as_str())) {
                let message = "Without a launch template, Versions must be $Latest, $Default or both";
                return Err(fault("InvalidParameterCombination", message));
            }
            for (id, template) in self.ec2.of_kind("lt") {
                let numbers: Vec<u64> = wanted.iter().filter_map(|wanted| version(template, wanted)).collect();
                found.extend(self.versions(id, |number| numbers.contains(&number))?);
            }
        }
        found.retain(|(_, version)| version.as_object().is_some_and(|version| filters.pass(version)));
        self.page("launchTemplateVersionSet", 1, 200, found)
    }

    pub(super) fn modify_launch_template(&mut self) -> Reply {
        let id = self.template()?;
        let number = self.version(&id, &self.require("SetDefaultVersion")?)?;
        self.ec2.find_mut("lt", &id)?.insert("defaultVersionNumber".to_owned(), number.into());
        Ok(json!({"launchTemplate": self.shown(&id)}))
    }

    pub(super) fn delete_launch_template(&mut self) -> Reply {
        let id = self.template()?;
        let shown = self.shown(&id);
        self.ec2.resources.remove(&id);
        Ok(json!({"launchTemplate": shown}))
    }

    pub(super) fn delete_launch_template_versions(&mut self) -> Reply {
        let id = self.template()?;
        let (mut gone, mut kept) = (Vec::new(), Vec::new());
        for wanted in self.req.texts("LaunchTemplateVersion") {
            let template = self.ec2.find_mut("lt", &id)?;
            let name = get(template, "launchTemplateName").to_owned();
            let found = wanted.parse::<u64>().ok().and_then(|_| version(template, &wanted));
            let mut item = json!({"launchTemplateId": id, "launchTemplateName": name, "versionNumber": wanted});
            let why = match found {
                None => Some(("launchTemplateVersionDoesNotExist", format!("The version {wanted} does not exist."))),
                Some(number) if number == self::number(template, "defaultVersionNumber") => {
                    Some(("unexpectedError", format!("The default version {number} cannot be deleted.")))
                }
                Some(number) => {
                    edit(template, "_versions", |all| {
                        all.retain(|version| version.get("versionNumber") != Some(&number.into()))
                    });
                    let latest = versions(template).map(|version| self::number(version, "versionNumber")).max();
                    template.insert("latestVersionNumber".to_owned(), latest.into());
                    None
                }
            };
            match why {
                None => gone.push(item),
                Some((code, message)) => {
                    if let Value::Object(item) = &mut item {
                        item.insert("responseError".to_owned(), json!({"code": code, "message": message}));
                    }
                    kept.push(item);
                }
            }
        }
        Ok(json!({
            "successfullyDeletedLaunchTemplateVersionSet": gone, "unsuccessfullyDeletedLaunchTemplateVersionSet": kept,
        }))
    }
}
