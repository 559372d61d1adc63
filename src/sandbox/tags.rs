//! Tags, and the rules for them that services share.

use std::collections::BTreeMap;

pub type Tags = BTreeMap<String, String>;

/// On error: the part of the tag (`key` or `value`) that breaks a rule, and the rule.
pub fn check_tag(key: &str, value: &str) -> Result<(), (&'static str, String)> {
    let plain = |text: &str| text.chars().all(|c| c.is_alphanumeric() || c == ' ' || "_.:/=+-@".contains(c));
    let pattern = r"Member must satisfy regular expression pattern: [\p{L}\p{Z}\p{N}_.:/=+\-@]";
    let too_long = |most: usize| format!("Member must have length less than or equal to {most}");
    if key.is_empty() {
        Err(("key", "Member must have length greater than or equal to 1".to_owned()))
    } else if key.chars().count() > 128 {
        Err(("key", too_long(128)))
    } else if value.chars().count() > 256 {
        Err(("value", too_long(256)))
    } else if !plain(key) {
        Err(("key", format!("{pattern}+")))
    } else if !plain(value) {
        Err(("value", format!("{pattern}*")))
    } else if key.to_ascii_lowercase().starts_with("aws:") {
        Err(("key", "Member must not begin with aws:, which is reserved for AWS".to_owned()))
    } else {
        Ok(())
    }
}
