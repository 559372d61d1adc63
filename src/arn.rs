//! Parses and builds Amazon Resource Names.

use std::fmt;

/// `arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arn<'a> {
    pub partition: &'a str,
    pub service: &'a str,
    /// Empty for resources of global services, such as IAM.
    pub region: &'a str,
    pub account: &'a str,
    /// Such as `role/PATH/NAME`. It may contain colons.
    pub resource: &'a str,
}

impl<'a> Arn<'a> {
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.strip_prefix("arn:")?.splitn(5, ':');
        Some(Self {
            partition: parts.next()?,
            service: parts.next()?,
            region: parts.next()?,
            account: parts.next()?,
            resource: parts.next()?,
        })
    }

    /// The type of the resource, and the rest: `role` and `PATH/NAME`.
    pub fn typed(&self) -> (&'a str, &'a str) {
        self.resource.split_once('/').unwrap_or((self.resource, ""))
    }
}

impl fmt::Display for Arn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, service, region, account, resource } = self;
        write!(f, "arn:{partition}:{service}:{region}:{account}:{resource}")
    }
}

/// The last part of an ARN: the name of a role or user without its path, or an id.
pub fn name_in(arn: &str) -> &str {
    arn.rsplit(['/', ':']).next().unwrap_or_default()
}

/// Turns `arn:aws:sts::1:assumed-role/Name/session` into
/// `arn:aws:iam::1:role/Name`. Other ARNs stay as they are. An assumed-role ARN
/// doesn't have the role's path.
pub fn role_of(arn: &str) -> String {
    let Some(session) = Arn::parse(arn).filter(|arn| arn.service == "sts") else { return arn.to_owned() };
    match session.typed() {
        ("assumed-role", rest) if !rest.is_empty() => {
            let name = rest.split('/').next().unwrap_or_default();
            Arn { service: "iam", region: "", resource: &format!("role/{name}"), ..session }.to_string()
        }
        _ => arn.to_owned(),
    }
}

/// The identity of an IAM role or user, or of the role of a session, without the path: `aws:123456789012:role/name`.
/// Two ARNs of one principal have the same key. The ARN of a session has no path, and an account has no two roles and
/// no two users whose names differ only in path or case (IAM User Guide, "IAM and AWS STS quotas", "IAM name
/// requirements"). `None` for any other ARN.
pub fn principal_key(arn: &str) -> Option<String> {
    let arn = role_of(arn);
    let parsed = Arn::parse(&arn).filter(|arn| arn.service == "iam")?;
    let (kind, path) = parsed.typed();
    let name = name_in(path).to_ascii_lowercase();
    let known = matches!(kind, "role" | "user") && !name.is_empty() && !parsed.account.is_empty();
    known.then(|| format!("{}:{}:{kind}/{name}", parsed.partition, parsed.account))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_is_the_text_that_it_was_read_from() {
        let text = "arn:aws-cn:logs:cn-north-1:123456789012:log-group:/aws/eks/acme/cluster:*";
        let arn = Arn::parse(text);
        assert_eq!(arn.map(|arn| arn.to_string()).as_deref(), Some(text));
        assert_eq!(arn.map(|arn| arn.resource), Some("log-group:/aws/eks/acme/cluster:*"));
        for other in ["", "arn", "arn:aws:iam::1", "urn:aws:iam::1:role/x", "role/x"] {
            assert_eq!(Arn::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_session_is_one_of_its_role() {
        assert_eq!(role_of("arn:aws:sts::1:assumed-role/Admin/me"), "arn:aws:iam::1:role/Admin");
        for same in ["arn:aws:iam::1:role/a/Admin", "arn:aws:sts::1:federated-user/me", "arn:aws:sts::1:assumed-role"] {
            assert_eq!(role_of(same), same);
        }
        assert_eq!(name_in("arn:aws:iam::1:role/a/b/Admin"), "Admin");
        assert_eq!(name_in("arn:aws:iam::1:root"), "root");
    }

    #[test]
    fn one_principal_has_one_key() {
        let role = Some("aws:1:role/admin".to_owned());
        for same in
            ["arn:aws:iam::1:role/Admin", "arn:aws:iam::1:role/a/b/admin", "arn:aws:sts::1:assumed-role/Admin/me"]
        {
            assert_eq!(principal_key(same), role, "{same}");
        }
        for other in [
            "arn:aws:iam::2:role/Admin",
            "arn:aws-cn:iam::1:role/Admin",
            "arn:aws:iam::1:user/Admin",
            "arn:aws:iam::1:role/Admin2",
        ] {
            assert!(principal_key(other).is_some_and(|key| Some(key) != role), "{other}");
        }
        for none in [
            "",
            "arn:aws:iam::1:root",
            "arn:aws:sts::1:federated-user/me",
            "arn:aws:iam::1:role/",
            "arn:aws:s3:::role/x",
        ] {
            assert_eq!(principal_key(none), None, "{none}");
        }
    }
}
