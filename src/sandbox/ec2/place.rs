//! Regions and availability zones: static facts.

use super::describe::Filters;
use super::{Call, Doc, Fault, Reply, doc, invalid};
use serde_json::{Value, json};

/// A region's zone letters, each with the number of its zone id. On AWS, which letter belongs to which id differs from
/// account to account. This account is old enough to have the fourth zone of Tokyo. A region that isn't listed has
/// zones a, b and c.
#[rustfmt::skip]
const REGIONS: &[(&str, &str)] = &[
    ("af-south-1", "a1 b2 c3"), ("ap-east-1", "a1 b2 c3"), ("ap-northeast-1", "a4 b3 c1 d2"), ("ap-northeast-2", "a1 b2 c3 d4"),
    ("ap-northeast-3", "a3 b1 c2"), ("ap-south-1", "a1 b3 c2"), ("ap-south-2", "a1 b2 c3"), ("ap-southeast-1", "a1 b2 c3"),
    ("ap-southeast-2", "a1 b3 c2"), ("ap-southeast-3", "a1 b2 c3"), ("ap-southeast-4", "a1 b2 c3"), ("ca-central-1", "a1 b2 d4"),
    ("ca-west-1", "a1 b2 c3"), ("cn-north-1", "a1 b2 d4"), ("cn-northwest-1", "a1 b2 c3"), ("eu-central-1", "a2 b3 c1"),
    ("eu-central-2", "a1 b2 c3"), ("eu-north-1", "a1 b2 c3"), ("eu-south-1", "a1 b2 c3"), ("eu-south-2", "a1 b2 c3"),
    ("eu-west-1", "a1 b2 c3"), ("eu-west-2", "a2 b3 c1"), ("eu-west-3", "a1 b2 c3"), ("eusc-de-east-1", "a1 b2 c3"), ("il-central-1", "a1 b2 c3"),
    ("me-central-1", "a1 b2 c3"), ("me-south-1", "a1 b2 c3"), ("sa-east-1", "a1 b2 c3"), ("us-east-1", "a1 b2 c4 d6 e3 f5"),
    ("us-east-2", "a1 b2 c3"), ("us-gov-east-1", "a1 b2 c3"), ("us-gov-west-1", "a1 b2 c3"), ("us-west-1", "a1 b3 c2"),
    ("us-west-2", "a1 b2 c3 d4"),
];

/// Regions that an account must opt in to.
const OPT_IN: &[&str] = &[
    "af-south-1",
    "ap-east-1",
    "ap-south-2",
    "ap-southeast-3",
    "ap-southeast-4",
    "ca-west-1",
    "eu-central-2",
    "eu-south-1",
    "eu-south-2",
    "il-central-1",
    "me-central-1",
    "me-south-1",
];

/// Names and ids of a region's zones, such as `us-east-1a` and `use1-az1`.
pub fn zones(region: &str) -> Vec<(String, String)> {
    let letters = REGIONS.iter().find(|(name, _)| *name == region).map_or("a1 b2 c3", |(_, letters)| letters);
    letters
        .split(' ')
        .filter_map(|zone| zone.split_at_checked(1))
        .map(|(letter, number)| (format!("{region}{letter}"), format!("{}-az{number}", short(region))))
        .collect()
}

/// `use1` for `us-east-1`, `apne1` for `ap-northeast-1`, `usgw1` for `us-gov-west-1`.
fn short(region: &str) -> String {
    let words: Vec<&str> = region.split('-').collect();
    let brief = |word: &str| match word {
        "northeast" => "ne".to_owned(),
        "northwest" => "nw".to_owned(),
        "southeast" => "se".to_owned(),
        "southwest" => "sw".to_owned(),
        word => word.chars().take(1).collect(),
    };
    match words.split_first() {
        Some((area, rest)) => std::iter::once((*area).to_owned()).chain(rest.iter().map(|word| brief(word))).collect(),
        None => String::new(),
    }
}

impl Call<'_> {
    pub(super) fn describe_availability_zones(&mut self) -> Reply {
        const FILTERS: &[(&str, &str)] = &[
            ("zone-name", "zoneName"),
            ("zone-id", "zoneId"),
            ("state", "zoneState"),
            ("region-name", "regionName"),
            ("group-name", "groupName"),
            ("zone-type", "zoneType"),
            ("opt-in-status", "optInStatus"),
        ];
        let filters = Filters::of(self.req, FILTERS)?;
        let region = &self.req.region;
        let (names, ids) = (self.req.texts("ZoneName"), self.req.texts("ZoneId"));
        let zones = zones(region);
        if let Some(name) = names.iter().find(|name| !zones.iter().any(|(zone, _)| zone == *name)) {
            return Err(invalid(format!("Invalid availability zone: [{name}]")));
        }
        let found = zones
            .iter()
            .filter(|(name, id)| (names.is_empty() || names.contains(name)) && (ids.is_empty() || ids.contains(id)))
            .map(|(name, id)| {
                doc(json!({
                    "optInStatus": "opt-in-not-required", "messageSet": [], "regionName": region, "zoneName": name, "zoneId": id,
                    "groupName": format!("{region}-zg-1"), "networkBorderGroup": region, "zoneType": "availability-zone", "zoneState": "available",
                }))
            });
        Ok(json!({"availabilityZoneInfo": kept(found, &filters)}))
    }

    pub(super) fn describe_regions(&mut self) -> Reply {
        const FILTERS: &[(&str, &str)] =
            &[("region-name", "regionName"), ("endpoint", "regionEndpoint"), ("opt-in-status", "optInStatus")];
        let filters = Filters::of(self.req, FILTERS)?;
        let (names, all) = (self.req.texts("RegionName"), self.flag("AllRegions") == Some(true));
        let partition = self.req.partition();
        let known = |name: &str| REGIONS.iter().any(|(region, _)| *region == name);
        if let Some(name) = names.iter().find(|name| !known(name)) {
            return Err(invalid(format!("Invalid region: [{name}]")));
        }
        let found = REGIONS
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| super::super::state::partition(name) == partition)
            .filter(|name| if names.is_empty() { all || !OPT_IN.contains(name) } else { names.iter().any(|n| n == name) })
            .map(|name| {
                let opt_in = if OPT_IN.contains(&name) { "not-opted-in" } else { "opt-in-not-required" };
                let suffix = super::super::state::dns_suffix(name);
                doc(json!({"regionName": name, "regionEndpoint": format!("ec2.{name}.{suffix}"), "optInStatus": opt_in}))
            });
        Ok(json!({"regionInfo": kept(found, &filters)}))
    }

    pub(super) fn describe_account_attributes(&mut self) -> Reply {
        let wanted = self.req.texts("AttributeName");
        let elastic = super::super::quotas::limit(self.quotas, super::nat::ADDRESSES_QUOTA).to_string();
        let attributes = [
            ("supported-platforms", "VPC"),
            ("default-vpc", "none"),
            ("max-instances", "20"),
            ("vpc-max-security-groups-per-interface", "5"),
            ("max-elastic-ips", &elastic),
            ("vpc-max-elastic-ips", &elastic),
        ];
        let found = attributes
            .iter()
            .filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|w| w == name))
            .map(|(name, value)| json!({"attributeName": name, "attributeValueSet": [{"attributeValue": value}]}));
        Ok(json!({"accountAttributeSet": found.collect::<Value>()}))
    }

    /// The zone of a new subnet, by name or id; the first zone if neither is given.
    pub(super) fn zone(&self) -> Result<(String, String), Fault> {
        let (name, id) = (self.req.text("AvailabilityZone"), self.req.text("AvailabilityZoneId"));
        let zones = zones(&self.req.region);
        let wanted = |(zone, zone_id): &&(String, String)| {
            name.as_ref().is_none_or(|name| name == zone) && id.as_ref().is_none_or(|id| id == zone_id)
        };
        zones.iter().find(wanted).cloned().ok_or_else(|| {
            let given = name.as_deref().or(id.as_deref()).unwrap_or_default();
            let all: Vec<&str> = zones.iter().map(|(zone, _)| zone.as_str()).collect();
            invalid(format!(
                "Value ({given}) for parameter availabilityZone is invalid. Subnets can currently only be created in the following availability zones: {}.",
                all.join(", ")
            ))
        })
    }
}

fn kept(found: impl Iterator<Item = Doc>, filters: &Filters) -> Value {
    found.filter(|doc| filters.pass(doc)).map(Value::Object).collect()
}

#[cfg(test)]
mod tests {
    use super::zones;

    #[test]
    fn zones_are_those_of_aws() {
        let name = |region: &str| zones(region).into_iter().next().unwrap_or_default();
        assert_eq!(name("ap-northeast-1"), ("ap-northeast-1a".into(), "apne1-az4".into()));
        assert_eq!(name("us-gov-west-1"), ("us-gov-west-1a".into(), "usgw1-az1".into()));
        assert_eq!(name("cn-northwest-1"), ("cn-northwest-1a".into(), "cnnw1-az1".into()));
        assert!(zones("xx-new-9").len() == 3);
    }
}
