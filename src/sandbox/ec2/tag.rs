//! Tags: in create calls, on existing resources, and listed.
//!
//! Rules: EC2 user guide, "Tag restrictions" (50 tags, key 128, value 256 characters, `aws:` reserved).

use super::super::wire::{items, text};
use super::describe::Filters;
use super::{Call, Doc, Fault, Kind, Reply, Request, done, edit, fault, get, invalid, list, missing};

use serde_json::{Value, json};
use std::collections::BTreeSet;

const MAX_TAGS: usize = 50;

/// The tags for a new resource of this type, from `TagSpecification`, as `tagSet` items.
pub(super) fn specified(req: &Request, tag_type: &str) -> Result<Vec<Value>, Fault> {
    let mut tags = Vec::new();
    let mut keys = BTreeSet::new();
    for specification in req.items("TagSpecification") {
        let given = text(specification, "ResourceType").ok_or_else(|| missing("ResourceType"))?;
        if given != tag_type {
            return Err(invalid(format!("'{given}' is not a valid taggable resource type for this operation.")));
        }
        if items(specification, "Tag").is_empty() {
            return Err(invalid("Tag specification must have at least one tag"));
        }
        for tag in items(specification, "Tag") {
            let (key, value) = checked(tag)?;
            if !keys.insert(key.clone()) {
                return Err(invalid(format!("Duplicate tag key '{key}' specified.")));
            }
            tags.push(json!({"key": key, "value": value}));
        }
    }
    if tags.len() > MAX_TAGS {
        return Err(too_many());
    }
    Ok(tags)
}

pub(super) fn set(doc: &mut Doc, key: &str, value: &str) {
    edit(doc, "tagSet", |tags| {
        tags.retain(|tag| text(tag, "key").as_deref() != Some(key));
        tags.push(json!({"key": key, "value": value}));
    });
}

fn checked(tag: &Value) -> Result<(String, String), Fault> {
    let key = text(tag, "Key").ok_or_else(|| invalid("Tag key cannot be null or empty."))?;
    let value = text(tag, "Value").unwrap_or_default();
    if key.to_ascii_lowercase().starts_with("aws:") {
        return Err(invalid(format!("Tag keys starting with 'aws:' are reserved for internal use: '{key}'")));
    }
    if key.chars().count() > 128 {
        return Err(invalid(format!("Tag key exceeds the maximum length of 128 characters: '{key}'")));
    }
    if value.chars().count() > 256 {
        return Err(invalid(format!("Tag value exceeds the maximum length of 256 characters: '{value}'")));
    }
    Ok((key, value))
}

fn too_many() -> Fault {
    fault("TagLimitExceeded", format!("The maximum number of Tags for a resource has been reached: {MAX_TAGS}."))
}

impl Call<'_> {
    fn tagged(&self) -> Result<Vec<String>, Fault> {
        let ids = self.req.texts("ResourceId");
        if ids.is_empty() {
            return Err(missing("ResourceIdSet"));
        }
        for id in &ids {
            match Kind::of(id) {
                Some(kind) if !self.ec2.resources.contains_key(id) => return Err(kind.unknown(id)),
                Some(_) => {}
                None => return Err(fault("InvalidID", format!("The ID '{id}' is not valid"))),
            }
        }
        Ok(ids)
    }

    pub(super) fn create_tags(&mut self) -> Reply {
        let ids = self.tagged()?;
        let tags = self.req.items("Tag").iter().map(checked).collect::<Result<Vec<_>, _>>()?;
        if tags.is_empty() {
            return Err(missing("TagSet"));
        }
        for doc in ids.iter().filter_map(|id| self.ec2.resources.get(id)) {
            let keys = list(doc, "tagSet").iter().filter_map(|tag| text(tag, "key"));
            // Reserved tags don't count towards the 50.
            let keys: BTreeSet<String> =
                keys.filter(|key| !key.starts_with("aws:")).chain(tags.iter().map(|(key, _)| key.clone())).collect();
            if keys.len() > MAX_TAGS {
                return Err(too_many());
            }
        }
        for id in &ids {
            for (key, value) in &tags {
                self.ec2.tag(id, key, value);
            }
        }
        done()
    }

    pub(super) fn delete_tags(&mut self) -> Reply {
        let ids = self.tagged()?;
        let wanted = self.req.items("Tag");
        for id in &ids {
            let Some(doc) = self.ec2.resources.get_mut(id) else { continue };
            edit(doc, "tagSet", |tags| {
                tags.retain(|tag| {
                    let (key, value) = (text(tag, "key").unwrap_or_default(), text(tag, "value").unwrap_or_default());
                    // A key without a value removes the tag whatever its value is. A key with a value removes it only
                    // if the value is the same. A request without tags removes all tags.
                    let named = wanted.is_empty()
                        || wanted.iter().any(|wanted| {
                            let given = wanted.get("Value").and_then(Value::as_str);
                            text(wanted, "Key").as_deref() == Some(&key) && given.is_none_or(|given| given == value)
                        });
                    key.starts_with("aws:") || !named
                });
            });
        }
        done()
    }

    pub(super) fn describe_tags(&mut self) -> Reply {
        const FILTERS: &[(&str, &str)] =
            &[("key", "key"), ("value", "value"), ("resource-id", "resourceId"), ("resource-type", "resourceType")];
        let filters = Filters::of(self.req, FILTERS)?;
        let mut found = Vec::new();
        for (id, doc) in &self.ec2.resources {
            let kind = Kind::of(id).map_or("", |kind| kind.tag_type);
            for tag in list(doc, "tagSet") {
                let item = super::doc(json!({
                    "resourceId": id, "resourceType": kind, "key": tag.get("key"), "value": tag.get("value"),
                    // `_tagSet` serves filters of the form `tag:KEY`.
                    "_tagSet": [tag],
                }));
                if filters.pass(&item) {
                    found.push((format!("{id}/{}", get(&item, "key")), Value::Object(item)));
                }
            }
        }
        self.page("tagSet", 5, 1000, found)
    }
}
