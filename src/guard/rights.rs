//! What the Roles of a namespace let a user do ("Using RBAC Authorization" of the Kubernetes documentation).

use serde::Deserialize;
use serde_json::Value;

use super::request::User;

/// The rules that apply to a user in one namespace.
#[derive(Clone, Debug, Default)]
pub struct Rights(Vec<Rule>);

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    api_groups: Vec<String>,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
}

impl Rights {
    /// The rules of all Roles among `objects` that a RoleBinding of the namespace gives to the user.
    pub fn of<'o>(objects: impl IntoIterator<Item = &'o Value> + Clone, namespace: &str, user: &User) -> Self {
        let text = |object: &'o Value, pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let is = |object: &'o Value, kind: &str| {
            text(object, "/kind") == Some(kind) && text(object, "/metadata/namespace") == Some(namespace)
        };
        let given = |binding: &'o Value| {
            let subjects = binding.get("subjects").and_then(Value::as_array).into_iter().flatten();
            subjects.into_iter().any(|subject| match (text(subject, "/kind"), text(subject, "/name")) {
                (Some("Group"), Some(name)) => user.groups.iter().any(|group| group == name),
                (Some("User"), Some(name)) => user.username == name,
                _ => false,
            })
        };
        let roles = objects.clone().into_iter().filter(|object| is(object, "RoleBinding")).filter(|b| given(b));
        let roles: Vec<&str> = roles
            .filter(|binding| text(binding, "/roleRef/kind") == Some("Role"))
            .filter_map(|binding| text(binding, "/roleRef/name"))
            .collect();
        let rules = objects.into_iter().filter(|object| {
            is(object, "Role") && text(object, "/metadata/name").is_some_and(|name| roles.contains(&name))
        });
        let rules = rules.flat_map(|role| role.get("rules").and_then(Value::as_array).into_iter().flatten());
        Self(rules.filter_map(|rule| Rule::deserialize(rule).ok()).collect())
    }

    /// Whether a rule allows `verb` on a resource, such as `pods` or `pods/log`.
    pub fn allow(&self, verb: &str, group: &str, resource: &str, name: Option<&str>) -> bool {
        let has = |list: &[String], value: &str| list.iter().any(|one| one == "*" || one == value);
        self.0.iter().any(|rule| {
            has(&rule.verbs, verb)
                && has(&rule.api_groups, group)
                && has(&rule.resources, resource)
                && (rule.resource_names.is_empty()
                    || name.is_some_and(|name| rule.resource_names.iter().any(|one| one == name)))
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_roles_that_are_bound_to_the_user_count() {
        let role = |name: &str, namespace: &str, resource: &str| {
            json!({"kind": "Role", "metadata": {"name": name, "namespace": namespace},
                "rules": [{"apiGroups": [""], "resources": [resource], "verbs": ["get", "create"]},
                    {"apiGroups": ["apps"], "resources": ["*"], "resourceNames": ["web"], "verbs": ["*"]}]})
        };
        let binding = |name: &str, namespace: &str, group: &str, kind: &str| {
            json!({"kind": "RoleBinding", "metadata": {"name": name, "namespace": namespace},
                "roleRef": {"kind": kind, "name": name}, "subjects": [{"kind": "Group", "name": group}]})
        };
        let objects = [
            role("a", "t-red", "pods"),
            role("b", "t-red", "secrets"),
            role("c", "t-blue", "configmaps"),
            binding("a", "t-red", "tenant:red", "Role"),
            binding("b", "t-red", "tenant:blue", "Role"),
            binding("c", "t-blue", "tenant:red", "Role"),
            binding("b", "t-red", "tenant:red", "ClusterRole"),
        ];
        let user = User { username: "somebody".to_owned(), groups: vec!["tenant:red".to_owned()] };
        let rights = Rights::of(&objects, "t-red", &user);
        assert!(rights.allow("create", "", "pods", None));
        assert!(rights.allow("delete", "apps", "deployments", Some("web")));
        for (verb, group, resource, name) in [
            ("delete", "", "pods", None),
            ("create", "", "pods/exec", None),
            ("create", "", "secrets", None),
            ("create", "", "configmaps", None),
            ("create", "batch", "pods", None),
            ("delete", "apps", "deployments", Some("api")),
            ("create", "apps", "deployments", None),
        ] {
            assert!(!rights.allow(verb, group, resource, name), "{verb} {group}/{resource}");
        }
    }
}
