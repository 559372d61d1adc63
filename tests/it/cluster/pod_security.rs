//! The test pods of the Pod Security Standards, in a tenant's namespace.
//!
//! They are used as their authors wrote them, except for fields that the
//! standards don't check: names without underscores (the server refuses them),
//! images from the tenant's registry, and, if the version fills in nothing,
//! node selector, toleration, pull policy and IDs, which the policies require.

use std::fs;

use serde_json::{Value, json};

use super::hostile::{Findings, Home, OLD_RED, RED, inputs};
use crate::support::kubernetes::merged;
use crate::support::kubernetes::{Answer, yaml};

/// The control of ours that refuses pods which fail a check of the standards.
const CHECKS: [(&str, &str); 18] = [
    // The container has no security context at all.
    ("allowprivilegeescalation3", "POD-1|POD-2"),
    ("allowprivilegeescalation", "POD-1"),
    ("apparmorprofile", "POD-6"),
    ("capabilities", "POD-2"),
    ("hostnamespaces", "POD-5"),
    ("hostpathvolumes", "POD-4"),
    ("hostports", "POD-5"),
    ("hostprobesandhostlifecycle", "POD-5"),
    ("privileged", "POD-1"),
    ("procmount_restricted", "POD-1"),
    // Without a user namespace, the server itself refuses another procMount.
    ("procmount", "server"),
    ("restrictedvolumes", "POD-4"),
    ("runasnonroot", "POD-3"),
    ("runasuser", "POD-3"),
    ("seccompprofile", "POD-6"),
    ("selinuxoptions", "POD-7"),
    ("sysctls", "POD-5"),
    ("windowshostprocess", "POD-5"),
];

/// Pods that only fail because of a missing field. The mutating policies fill
/// it in, and the result must pass. All other failing pods must be refused.
const STAMPED: [&str; 8] = [
    "allowprivilegeescalation2",
    "allowprivilegeescalation3",
    "capabilities_restricted0",
    "capabilities_restricted1",
    "runasnonroot0",
    "seccompprofile_restricted0",
    "seccompprofile_restricted2",
    "seccompprofile_restricted3",
];

/// Pods that the standards admit and ringfence refuses, with the control.
const STRICTER: [(&str, &str); 7] = [
    // The pod has more capabilities than the tier allows.
    ("pass/capabilities_baseline0", "POD-2"),
    // A user namespace is no reason to unmask /proc.
    ("pass/procmount1", "POD-1"),
    // Only the tenant's own IDs are allowed.
    ("pass/runasuser0", "POD-3"),
    // Only the tier's own profiles are allowed.
    ("pass/seccompprofile_restricted1", "POD-6"),
    ("pass/seccompprofile_restricted2", "POD-6"),
    // A tenant may not choose any SELinux label.
    ("pass/selinuxoptions1", "POD-7"),
    // All nodes run Linux. For a Windows pod, the server refuses the fields
    // that are filled in.
    ("pass/base_windows", "server"),
];

/// A test pod, adapted to a tenant.
pub struct Fixture {
    /// Such as `restricted/v1.36/fail/runasuser0`.
    pub path: String,
    pub pod: Value,
}

impl Fixture {
    fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap()
    }

    /// The control that must refuse this pod.
    fn control(&self) -> &'static str {
        let check = CHECKS.iter().find(|(check, _)| self.name().starts_with(check));
        check.unwrap_or_else(|| panic!("{}: no check of this name", self.path)).1
    }

    pub fn within(&self, namespace: &str) -> Value {
        merged(self.pod.clone(), &json!({"metadata": {"namespace": namespace}}))
    }
}

pub fn fixtures(home: &Home, outcome: &str, mutates: bool) -> Vec<Fixture> {
    let mut all = Vec::new();
    for level in ["baseline", "restricted"] {
        for version in ["v1.34", "v1.36"] {
            let at = format!("{level}/{version}/{outcome}");
            let dir = inputs().join("pod-security").join(&at);
            for file in fs::read_dir(dir).unwrap() {
                let file = file.unwrap().path();
                let mut pod = yaml(&fs::read_to_string(&file).unwrap()).remove(0);
                let name = file.file_stem().unwrap().to_string_lossy().into_owned();
                pod["metadata"]["name"] = name.replace('_', "-").into();
                for kind in ["containers", "initContainers"] {
                    for container in pod["spec"][kind].as_array_mut().into_iter().flatten() {
                        container["image"] = "123456789012.dkr.ecr.us-east-1.amazonaws.com/acme/shared/pause".into();
                    }
                }
                if !mutates {
                    pod = completed(home, pod, level == "baseline" || outcome == "pass");
                }
                all.push(Fixture { path: format!("{at}/{name}"), pod });
            }
        }
    }
    all.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(all.len() > 50, "all test pods are there");
    all
}

/// Adds the fields that the policies require if the version fills in nothing.
/// `restricted`: also the fields that the standard `restricted` checks. Fields
/// of the author stay as they are.
fn completed(home: &Home, mut pod: Value, restricted: bool) -> Value {
    let is_windows = pod["spec"]["os"]["name"] == "windows";
    let mut complete = home.complete();
    let mut container = complete["containers"][0].take();
    container.as_object_mut().unwrap().retain(|field, _| field == "imagePullPolicy" || restricted && !is_windows);
    complete.as_object_mut().unwrap().remove("containers");
    if !restricted {
        let context = complete["securityContext"].as_object_mut().unwrap();
        context.retain(|field, _| !matches!(field.as_str(), "runAsNonRoot" | "seccompProfile"));
    }
    if is_windows {
        complete.as_object_mut().unwrap().remove("securityContext");
    }
    for kind in ["containers", "initContainers"] {
        for its in pod["spec"][kind].as_array_mut().into_iter().flatten() {
            let mut container = container.clone();
            if its["securityContext"]["privileged"] == true {
                // The server accepts only `true` for it.
                container["securityContext"].as_object_mut().map(|c| c.remove("allowPrivilegeEscalation"));
            }
            *its = merged(container, its);
        }
    }
    pod["spec"] = merged(complete, &pod["spec"]);
    pod["metadata"]["labels"]["ringfence.dev/tenant"] = home.id.into();
    pod
}

/// A namespace without a tenant, in which only Pod Security decides.
fn standard(home: &Home, level: &str, version: &str) -> String {
    let name = format!("standard-{level}-{}", version.replace('.', "-"));
    home.admin().create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {
        "pod-security.kubernetes.io/enforce": level, "pod-security.kubernetes.io/enforce-version": version}}}));
    name
}

/// Whether the admitted pod, after the policies changed it, passes the
/// standard.
fn passes_now(home: &Home, fixture: &Fixture, answer: &Answer) -> bool {
    let mut parts = fixture.path.split('/');
    let (level, version) = (parts.next().unwrap(), parts.next().unwrap());
    let namespace = standard(home, level, version);
    let spec = &answer.body["spec"];
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": spec, "metadata": {"name": "x", "namespace": namespace,
        "annotations": answer.body["metadata"]["annotations"]}});
    pod["spec"].as_object_mut().unwrap().remove("priority");
    home.admin().try_create(&pod).is_ok()
}

fn failing(home: &Home, mutates: bool) {
    home.prepare();
    let mut findings = Findings::default();
    for fixture in fixtures(home, "fail", mutates) {
        for namespace in [home.namespace(), home.twin()] {
            let answer = home.person().try_create(&fixture.within(&namespace));
            let what = format!("{} in {namespace}", fixture.path);
            if mutates && STAMPED.contains(&fixture.name()) {
                let right = answer.is_ok() && passes_now(home, &fixture, &answer);
                findings.expect(right, &what, "stamped", &answer);
            } else if namespace == home.namespace() && answer.message().contains("violates PodSecurity") {
                findings.refused(&what, "server", &answer);
            } else {
                findings.refused(&what, fixture.control(), &answer);
            }
        }
    }
    findings.none();
}

fn passing(home: &Home, mutates: bool) {
    home.prepare();
    let mut findings = Findings::default();
    for fixture in fixtures(home, "pass", mutates) {
        let stricter = |(path, _): &&(&str, &str)| fixture.path.ends_with(path);
        let control = STRICTER.iter().find(stricter).map(|(_, control)| *control);
        for namespace in [home.namespace(), home.twin()] {
            let answer = home.person().try_create(&fixture.within(&namespace));
            let what = format!("{} in {namespace}", fixture.path);
            match control {
                Some(_) if namespace == home.namespace() && answer.message().contains("violates PodSecurity") => {
                    findings.refused(&what, "server", &answer);
                }
                Some(control) => findings.refused(&what, control, &answer),
                None => findings.admitted(&what, &answer),
            }
        }
    }
    findings.none();
}

#[test]
fn what_fails_the_standards_is_refused() {
    failing(&RED, true);
}

#[test]
fn what_fails_the_standards_is_refused_where_nothing_is_stamped() {
    failing(&OLD_RED, false);
}

#[test]
fn what_passes_the_standards_is_admitted_or_refused_by_a_named_rule() {
    passing(&RED, true);
}

#[test]
fn what_passes_the_standards_is_admitted_or_refused_by_a_named_rule_where_nothing_is_stamped() {
    passing(&OLD_RED, false);
}
