use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_ec2::types::{
    Filter, LaunchTemplate as Template, LaunchTemplateBlockDeviceMapping, LaunchTemplateBlockDeviceMappingRequest,
    LaunchTemplateEbsBlockDeviceRequest, LaunchTemplateInstanceMetadataOptionsRequest, LaunchTemplateTagSpecification,
    LaunchTemplateTagSpecificationRequest, RequestLaunchTemplateData, ResourceType, ResponseLaunchTemplateData,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::costs::{Amount, Cost, Unit};
use super::permission::{self, On, When};
use super::{ec2, logical, physical};
use crate::aws::error::{failed, is_not_found};
use crate::aws::{Aws, tags};
use crate::engine::address::Address;
use crate::engine::error::{Class, Error, Result};
use crate::engine::kind::{Change, Found, Handle, Handlers, Kind, Made, New, Observation, Round, Rule, Status, Wanted};
use crate::engine::packed::Packed;
use crate::engine::value::Outputs;
use crate::kinds::{Clients, ResourceKind};

pub const NAME: &str = "aws.launch-template";

/// The value for `Versions` in `DescribeLaunchTemplateVersions` that selects the version in use.
const DEFAULT: &str = "$Default";

/// The resources that get the template's tags when it launches an instance.
const TAGGED: [ResourceType; 3] = [ResourceType::Instance, ResourceType::Volume, ResourceType::NetworkInterface];

/// A launch template. A change creates a new version, which becomes the default version. Outputs: `id`, `version`
/// (number of the default version, as text).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub name: String,
    /// A custom AMI. `None`: the node group's AMI type decides.
    pub image: Option<String>,
    /// Security groups that replace the cluster's own group.
    pub security_groups: Vec<String>,
    pub metadata: Metadata,
    pub volumes: Vec<Volume>,
    /// Plain text. It is sent in base64.
    pub user_data: String,
    /// Tags of the instances and volumes that the template launches.
    pub instance_tags: BTreeMap<String, String>,
    /// Data of the template that ringfence doesn't set (key names, interfaces, instance profiles that someone added),
    /// by field name. Desired: none. Observed: drift.
    pub other: BTreeMap<String, String>,
    pub tags: BTreeMap<String, String>,
}

/// Instance metadata options (row NET-2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// `enabled` or `disabled`.
    pub endpoint: String,
    /// `required` or `optional`.
    pub tokens: String,
    pub hop_limit: i32,
    pub ipv6: String,
    pub instance_tags: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Volume {
    /// Such as `/dev/xvdb`.
    pub device: String,
    /// GiB. `None`: the AMI's size.
    pub size: Option<i32>,
    /// `gp3`.
    #[serde(rename = "type")]
    pub kind: String,
    pub iops: Option<i32>,
    pub throughput: Option<i32>,
    pub encrypted: bool,
    /// ARN of the key. `None`: the account's default EBS key.
    pub key: Option<String>,
    pub delete_on_termination: bool,
}

impl State {
    fn data(&self) -> RequestLaunchTemplateData {
        let metadata = LaunchTemplateInstanceMetadataOptionsRequest::builder()
            .http_endpoint(self.metadata.endpoint.as_str().into())
            .http_tokens(self.metadata.tokens.as_str().into())
            .http_put_response_hop_limit(self.metadata.hop_limit)
            .http_protocol_ipv6(self.metadata.ipv6.as_str().into())
            .instance_metadata_tags(self.metadata.instance_tags.as_str().into())
            .build();
        let volumes = self.volumes.iter().map(Volume::sdk).collect();
        let tagged = TAGGED.into_iter().filter(|_| !self.instance_tags.is_empty()).map(|resource| {
            LaunchTemplateTagSpecificationRequest::builder()
                .resource_type(resource)
                .set_tags(Some(ec2::sdk_tags(&self.instance_tags)))
                .build()
        });
        fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
            Some(list).filter(|list| !list.is_empty())
        }
        RequestLaunchTemplateData::builder()
            .set_image_id(self.image.clone())
            .set_security_group_ids(some(self.security_groups.clone()))
            .metadata_options(metadata)
            .set_block_device_mappings(some(volumes))
            .set_user_data(Some(STANDARD.encode(&self.user_data)).filter(|text| !text.is_empty()))
            .set_tag_specifications(some(tagged.collect()))
            .build()
    }

    fn observed(template: &Template, data: &ResponseLaunchTemplateData, generation: u32, tags: tags::Tags) -> Self {
        let mut other = other(data);
        let metadata = data.metadata_options();
        let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
        let mut tagged: BTreeMap<&str, tags::Tags> = data
            .tag_specifications()
            .iter()
            .filter_map(|s| Some((s.resource_type()?.as_str(), ec2::tags(s.tags()))))
            .collect();
        // AWS emulators list the template's own tags here, too.
        tagged.remove(ResourceType::LaunchTemplate.as_str());
        let instance_tags = tagged.get(ResourceType::Instance.as_str()).cloned().unwrap_or_default();
        for resource in TAGGED {
            if tagged.remove(resource.as_str()).unwrap_or_default() != instance_tags {
                other.insert(format!("tag_specifications.{resource}"), "not the instance's tags".to_owned());
            }
        }
        other.extend(
            tagged.iter().map(|(resource, tags)| (format!("tag_specifications.{resource}"), format!("{tags:?}"))),
        );
        let mut volumes = Vec::new();
        for mapping in data.block_device_mappings() {
            let volume = Volume::observed(mapping);
            other.extend(unset(mapping).map(|(field, value)| (format!("volumes.{}.{field}", volume.device), value)));
            volumes.push(volume);
        }
        Self {
            name: logical(template.launch_template_name().unwrap_or_default(), generation),
            image: data.image_id().map(str::to_owned),
            security_groups: data.security_group_ids().to_vec(),
            metadata: Metadata {
                endpoint: text(metadata.and_then(|m| m.http_endpoint()).map(|v| v.as_str())),
                tokens: text(metadata.and_then(|m| m.http_tokens()).map(|v| v.as_str())),
                hop_limit: metadata.and_then(|m| m.http_put_response_hop_limit()).unwrap_or_default(),
                ipv6: text(metadata.and_then(|m| m.http_protocol_ipv6()).map(|v| v.as_str())),
                instance_tags: text(metadata.and_then(|m| m.instance_metadata_tags()).map(|v| v.as_str())),
            },
            volumes,
            user_data: decoded(data.user_data().unwrap_or_default()),
            instance_tags,
            other,
            tags,
        }
    }
}

/// Data that isn't base64 or text stays unchanged, so it differs from all data that we write.
fn decoded(user_data: &str) -> String {
    let text = STANDARD.decode(user_data).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    text.unwrap_or_else(|| user_data.to_owned())
}

impl Volume {
    fn sdk(&self) -> LaunchTemplateBlockDeviceMappingRequest {
        let ebs = LaunchTemplateEbsBlockDeviceRequest::builder()
            .set_volume_size(self.size)
            .volume_type(self.kind.as_str().into())
            .set_iops(self.iops)
            .set_throughput(self.throughput)
            .encrypted(self.encrypted)
            .set_kms_key_id(self.key.clone())
            .delete_on_termination(self.delete_on_termination)
            .build();
        LaunchTemplateBlockDeviceMappingRequest::builder().device_name(&self.device).ebs(ebs).build()
    }

    fn observed(mapping: &LaunchTemplateBlockDeviceMapping) -> Self {
        let ebs = mapping.ebs();
        Self {
            device: mapping.device_name().unwrap_or_default().to_owned(),
            size: ebs.and_then(|e| e.volume_size()),
            kind: ebs.and_then(|e| e.volume_type()).map(ToString::to_string).unwrap_or_default(),
            iops: ebs.and_then(|e| e.iops()),
            throughput: ebs.and_then(|e| e.throughput()),
            encrypted: ebs.and_then(|e| e.encrypted()).unwrap_or(false),
            key: ebs.and_then(|e| e.kms_key_id()).map(str::to_owned),
            delete_on_termination: ebs.and_then(|e| e.delete_on_termination()).unwrap_or(false),
        }
    }
}

/// The named fields of `$from` that are set, with their values as text.
macro_rules! fields {
    ($from:expr, $($field:ident),+ $(,)?) => {
        [$((stringify!($field), $from.$field.as_ref().map(|value| format!("{value:?}")))),+]
            .into_iter()
            .filter_map(|(field, value)| Some((field.to_owned(), value?)))
    };
}

/// Data of the template for which [`State`] has no field.
fn other(data: &ResponseLaunchTemplateData) -> BTreeMap<String, String> {
    // AWS returns the operator for every template. It is shown only if another service manages the template.
    let operator = data.operator().filter(|o| o.managed() == Some(true));
    let operator = operator.map(|o| ("operator".to_owned(), o.principal().unwrap_or_default().to_owned()));
    fields!(
        data,
        kernel_id,
        ebs_optimized,
        iam_instance_profile,
        instance_type,
        key_name,
        monitoring,
        placement,
        ram_disk_id,
        disable_api_termination,
        instance_initiated_shutdown_behavior,
        instance_market_options,
        credit_specification,
        cpu_options,
        capacity_reservation_specification,
        hibernation_options,
        enclave_options,
        instance_requirements,
        private_dns_name_options,
        maintenance_options,
        disable_api_stop,
        network_performance_options,
        // AWS returns empty lists for fields that aren't set.
        network_interfaces,
        elastic_gpu_specifications,
        elastic_inference_accelerators,
        security_groups,
        license_specifications,
        secondary_interfaces,
    )
    .filter(|(_, value)| value != "[]")
    .chain(operator)
    .collect()
}

/// Settings of a volume for which [`Volume`] has no field.
fn unset(mapping: &LaunchTemplateBlockDeviceMapping) -> impl Iterator<Item = (String, String)> {
    let ebs = mapping.ebs();
    fields!(mapping, virtual_name, no_device)
        .chain(ebs.into_iter().flat_map(|e| fields!(e, snapshot_id, volume_initialization_rate, ebs_card_index)))
}

pub struct LaunchTemplate;

pub struct LaunchTemplateHandlers {
    aws: Arc<Aws>,
}

impl LaunchTemplateHandlers {
    pub fn new(aws: Arc<Aws>) -> Self {
        Self { aws }
    }

    /// Templates of others with a wanted name. Names are unique in an account and region.
    async fn foreign(&self, wanted: &[Wanted]) -> Result<Observation> {
        let mut observation = Observation::default();
        let wanted: Vec<(&Wanted, State)> =
            wanted.iter().filter_map(|w| Some((w, w.state.typed::<State>().ok()?))).collect();
        for some in wanted.chunks(200) {
            let names = ec2::filter("launch-template-name", some.iter().map(|(_, s)| &s.name));
            for template in templates(&self.aws, vec![names]).await? {
                let claim = some.iter().find(|(_, s)| template.launch_template_name() == Some(&s.name));
                let tags = ec2::tags(template.tags());
                let owner = self.aws.owned(&tags).map(|(address, _)| address);
                if let Some((wanted, state)) = claim.filter(|(w, _)| owner.as_ref() != Some(&w.address)) {
                    let what = format!("launch template `{}`", state.name);
                    let id = template.launch_template_id().unwrap_or_default();
                    observation.foreign.push(ec2::foreign(&self.aws, wanted, id, &what, &tags));
                }
            }
        }
        Ok(observation)
    }
}

/// An observed template of ours.
pub(super) struct Ours {
    address: Address,
    generation: u32,
    tags: tags::Tags,
    template: Template,
    /// The data of its default version.
    data: ResponseLaunchTemplateData,
}

impl Ours {
    pub fn id(&self) -> &str {
        self.template.launch_template_id().unwrap_or_default()
    }

    /// The default version's number, and its data.
    pub fn current(&self) -> (String, &ResponseLaunchTemplateData) {
        (self.template.default_version_number().unwrap_or_default().to_string(), &self.data)
    }

    fn found(&self, aws: &Aws) -> Result<Found> {
        Ok(Found {
            address: self.address.clone(),
            generation: self.generation,
            id: self.id().to_owned(),
            outputs: outputs(&self.template),
            state: Packed::of(&State::observed(&self.template, &self.data, self.generation, aws.observed(&self.tags)))?,
            status: Status::Ready,
            refs: vec![],
        })
    }
}

/// All templates of ours, read once a round.
pub(super) async fn ours(aws: &Aws, round: &Round) -> Result<Arc<Vec<Ours>>> {
    round.once("ec2.launch-templates", || read(aws, vec![ec2::ours(aws)])).await
}

/// Data of versions of one template by number, including the default version, and the number of the default version.
/// The result is empty if one of the versions doesn't exist.
pub(super) async fn versions(
    aws: &Aws,
    id: &str,
    numbers: BTreeSet<&str>,
) -> Result<(BTreeMap<String, ResponseLaunchTemplateData>, Option<String>)> {
    let wanted = numbers.into_iter().chain([DEFAULT]).map(str::to_owned).collect();
    let call = aws.ec2.describe_launch_template_versions().launch_template_id(id).set_versions(Some(wanted));
    let answer = call.send().await.map_err(failed("ec2:DescribeLaunchTemplateVersions"));
    let found = match answer {
        Err(error) if is_not_found(&error) => Vec::new(),
        answer => answer?.launch_template_versions.unwrap_or_default(),
    };
    let (mut data, mut current) = (BTreeMap::new(), None);
    for version in found {
        let number = version.version_number().unwrap_or_default().to_string();
        if version.default_version() == Some(true) {
            current = Some(number.clone());
        }
        data.extend(version.launch_template_data.map(|d| (number, d)));
    }
    Ok((data, current))
}

/// True if both launch the same instances except for tags.
pub(super) fn alike(a: &ResponseLaunchTemplateData, b: &ResponseLaunchTemplateData) -> bool {
    let untagged = |data: &ResponseLaunchTemplateData| {
        let mut data = data.clone();
        data.tag_specifications = None;
        data
    };
    untagged(a) == untagged(b)
}

/// The tags that the template gives to instances.
pub(super) fn instance_tags(data: &ResponseLaunchTemplateData) -> tags::Tags {
    let of = |s: &&LaunchTemplateTagSpecification| s.resource_type() == Some(&ResourceType::Instance);
    data.tag_specifications().iter().find(of).map(|s| ec2::tags(s.tags())).unwrap_or_default()
}

async fn templates(aws: &Aws, filters: Vec<Filter>) -> Result<Vec<Template>> {
    aws.ec2
        .describe_launch_templates()
        .set_filters(Some(filters))
        .max_results(200)
        .into_paginator()
        .items()
        .send()
        .try_collect()
        .await
        .map_err(failed("ec2:DescribeLaunchTemplates"))
}

/// Data of default versions by template: of one template, or of all in the account.
async fn defaults(aws: &Aws, id: Option<&str>) -> Result<BTreeMap<String, ResponseLaunchTemplateData>> {
    let versions = aws
        .ec2
        .describe_launch_template_versions()
        .set_launch_template_id(id.map(str::to_owned))
        .versions(DEFAULT)
        .max_results(200)
        .into_paginator()
        .items()
        .send()
        .try_collect()
        .await
        .map_err(failed("ec2:DescribeLaunchTemplateVersions"))?;
    Ok(versions.into_iter().filter_map(|v| Some((v.launch_template_id?, v.launch_template_data?))).collect())
}

async fn read(aws: &Aws, filters: Vec<Filter>) -> Result<Vec<Ours>> {
    let mut all = Vec::new();
    for template in templates(aws, filters).await? {
        let tags = ec2::tags(template.tags());
        if let (Some(id), Some(owned)) = (template.launch_template_id().map(str::to_owned), aws.owned(&tags)) {
            all.push((id, owned, tags, template));
        }
    }
    // The call accepts one id or none.
    let mut data = if all.len() > 2 { defaults(aws, None).await? } else { BTreeMap::new() };
    let mut ours = Vec::new();
    for (id, (address, generation), tags, template) in all {
        if !data.contains_key(&id) {
            data.extend(defaults(aws, Some(&id)).await?);
        }
        let data = data.remove(&id).ok_or_else(|| {
            Error::new(Class::NotYet, format!("the default version of launch template {id} isn't visible yet"))
                .operation("ec2:DescribeLaunchTemplateVersions")
        })?;
        ours.push(Ours { address, generation, tags, template, data });
    }
    Ok(ours)
}

fn outputs(template: &Template) -> Outputs {
    let version = template.default_version_number().unwrap_or_default().to_string();
    ec2::outputs([("id", template.launch_template_id().unwrap_or_default()), ("version", &version)])
}

impl Kind for LaunchTemplate {
    fn name(&self) -> &'static str {
        NAME
    }

    fn moves(&self, changes: &[Change]) -> &'static [&'static str] {
        // A change of tags alone must not replace nodes: running instances are tagged in place. The group gets the
        // new version when its nodes are replaced for another reason.
        let data = changes.iter().any(|c| !c.path.starts_with("tags") && !c.path.starts_with("instance_tags"));
        if data { &["version"] } else { &[] }
    }

    fn rules(&self) -> &'static [(&'static str, Rule)] {
        &[("name", Rule::CreateOnly), ("security_groups", Rule::Unordered), ("volumes", Rule::Unordered)]
    }

    fn create_before_destroy(&self) -> bool {
        true
    }

    fn summary(&self, state: &Packed) -> String {
        ec2::summary(state, |s: &State| s.name.clone())
    }
}

impl ResourceKind for LaunchTemplate {
    fn handlers(&self, clients: &Clients) -> Arc<dyn Handlers> {
        Arc::new(LaunchTemplateHandlers::new(clients.aws.clone()))
    }

    fn costs(&self, state: &Packed) -> Vec<Cost> {
        let cost = |volume: &Value| {
            let size = volume["size"].as_u64().and_then(|size| u32::try_from(size).ok());
            let volume_type = volume["type"].as_str().unwrap_or_default().to_owned();
            Cost { unit: Unit::VolumeMonth { volume_type }, amount: size.map_or(Amount::Metered, Amount::EachNode) }
        };
        state["volumes"].as_array().into_iter().flatten().map(cost).collect()
    }

    fn reads(&self) -> &'static [&'static str] {
        &["ec2:DescribeLaunchTemplateVersions", "ec2:DescribeLaunchTemplates"]
    }

    fn permissions(&self) -> &'static [permission::Permission] {
        &[
            (On::New, When::Made, &["ec2:CreateLaunchTemplate"]),
            (On::Ours, When::Gone, &["ec2:DeleteLaunchTemplate"]),
            (On::Ours, When::Perhaps, &["ec2:CreateLaunchTemplateVersion", "ec2:ModifyLaunchTemplate"]),
        ]
    }
}

#[async_trait]
impl Handlers for LaunchTemplateHandlers {
    async fn observe(&self, round: &Round, wanted: &[Wanted]) -> Result<Observation> {
        let (ours, foreign) = futures::try_join!(ours(&self.aws, round), self.foreign(wanted))?;
        Ok(Observation { found: ours.iter().map(|one| one.found(&self.aws)).collect::<Result<_>>()?, ..foreign })
    }

    async fn find(&self, handles: &[Handle]) -> Result<Vec<Option<Found>>> {
        let read = async |filters| read(&self.aws, filters).await?.iter().map(|one| one.found(&self.aws)).collect();
        ec2::find(&self.aws, handles, read).await
    }

    async fn create(&self, new: &New) -> Result<Made> {
        let state: State = new.state.typed()?;
        let answer = self
            .aws
            .ec2
            .create_launch_template()
            .launch_template_name(physical(&state.name, new.generation))
            .launch_template_data(state.data())
            .client_token(&new.token)
            .tag_specifications(ec2::specification(ResourceType::LaunchTemplate, &state.tags, new.generation))
            .send()
            .await
            .map_err(ec2::making("ec2:CreateLaunchTemplate"))?;
        let outputs = answer.launch_template().map(outputs).unwrap_or_default();
        Ok(Made { id: outputs.get("id").cloned().unwrap_or_default(), outputs, ready: true })
    }

    async fn update(&self, from: &Found, to: &New, _changes: &[Change]) -> Result<Made> {
        let (old, new): (State, State) = (from.state.typed()?, to.state.typed()?);
        let mut outputs = from.outputs.clone();
        // The template keeps the name that it was created with.
        if (State { name: old.name.clone(), tags: old.tags.clone(), ..new.clone() }) != old {
            let answer = self
                .aws
                .ec2
                .create_launch_template_version()
                .launch_template_id(&from.id)
                .launch_template_data(new.data())
                .client_token(&to.token)
                .send()
                .await
                .map_err(ec2::making("ec2:CreateLaunchTemplateVersion"))?;
            let version = answer.launch_template_version().and_then(|v| v.version_number()).unwrap_or_default();
            self.aws
                .ec2
                .modify_launch_template()
                .launch_template_id(&from.id)
                .default_version(version.to_string())
                .send()
                .await
                .map_err(ec2::making("ec2:ModifyLaunchTemplate"))?;
            outputs.insert("version".to_owned(), version.to_string());
        }
        ec2::retag(&self.aws, &from.id, &old.tags, &new.tags).await?;
        Ok(Made { id: from.id.clone(), outputs, ready: true })
    }

    async fn delete(&self, found: &Found) -> Result<bool> {
        let call = self.aws.ec2.delete_launch_template().launch_template_id(&found.id).send().await;
        ec2::absent(call.map_err(failed("ec2:DeleteLaunchTemplate")))?;
        Ok(true)
    }
}
