//! `policyEngine`: what each engine adds to a silo's cluster, and what is said if the engine isn't installed.

use serde_json::json;

use super::*;

const IMAGE: &str = "123456789012.dkr.ecr.us-east-1.amazonaws.com/acme/platform/ringfence@sha256:\
                     0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A silo's estate that was applied, with the engine in its tier.
fn estate(engine: &str) -> Estate {
    let estate = Estate::applied(&SINGLE_SILO);
    fs::create_dir(estate.path().join("profiles")).unwrap();
    let own = format!("extends: premium\npolicyEngine: {engine}\n");
    fs::write(estate.path().join("profiles/own.yaml"), own).unwrap();
    estate.edit("tier: premium", "tier: own");
    estate
}

const WITH: [&str; 2] = ["--profiles", "profiles"];

fn run(estate: &Estate, args: &[&str]) -> Run {
    estate.run(&[args, &WITH].concat())
}

#[test]
fn the_webhook_is_switched_on_last_and_off_first() {
    let estate = estate("webhook");
    run(&estate, &["plan"]).refuses(&["spec.images.ringfence"]);
    estate.edit("spec:\n", &format!("spec:\n  images: {{ringfence: \"{IMAGE}\"}}\n"));
    let plan = estate.plan(&WITH);
    let steps = steps(&plan);
    let at =
        |part: &str| steps.iter().position(|step| step.ends_with(part)).unwrap_or_else(|| panic!("{part}: {steps:?}"));
    let [mutating, validating] = ["mutatingwebhookconfiguration/ringfence", "validatingwebhookconfiguration/ringfence"];
    for before in [
        "deployment.apps/ringfence-admission/webhook",
        "configmap/ringfence-admission/webhook",
        "service/ringfence-admission/webhook",
    ] {
        let before =
            steps.iter().position(|step| step.ends_with(before) || step.ends_with(&before.replace(".apps", "")));
        assert!(before.unwrap() < at(mutating), "{steps:?}");
    }
    assert!(at(mutating) < at(validating), "{steps:?}");
    run(&estate, &["apply", "--auto-approve"]).exits(0);
    run(&estate, &["plan", "--detailed-exitcode"]).exits(0);

    // The webhook's namespace isn't the tenant's, although the cluster is.
    let out = run(&estate, &["render", "--out", "rendered"]).exits(0);
    let home = fs::read_dir(estate.path().join("rendered/tenant-globex")).unwrap().map(|file| file.unwrap().path());
    let rendered: Vec<String> = home
        .filter(|file| file.to_string_lossy().contains("namespace_ringfence-admission"))
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    assert!(rendered.len() == 1 && !rendered[0].contains("ringfence.dev/tenant:"), "{rendered:?} {}", out.out);

    fs::write(estate.path().join("profiles/own.yaml"), "extends: premium\n").unwrap();
    let namespace = "tenant/globex/silo/k8s/namespace/ringfence-admission";
    let plan = estate.plan(&WITH);
    let last = super::steps(&plan).into_iter().position(|step| step.ends_with(namespace)).unwrap();
    let off = super::steps(&plan).into_iter().rposition(|step| step.contains("webhookconfiguration")).unwrap();
    assert!(off < last, "{:?}", super::steps(&plan));
    run(&estate, &["apply", "--auto-approve"]).refuses(&["--allow-destroy", namespace]);
    run(&estate, &["apply", "--auto-approve", "--allow-destroy", namespace]).exits(0);
    run(&estate, &["plan", "--detailed-exitcode"]).exits(0);
}

/// The platform's team installs OPA. Until then its ConfigMaps have no namespace.
#[test]
fn without_opa_the_missing_namespace_is_named() {
    let estate = estate("opa");
    let plan = estate.plan(&WITH);
    let maps: Vec<&Value> = list(&plan["steps"])
        .iter()
        .filter(|step| text(&step["address"]).contains("/k8s/configmap/opa/ringfence-"))
        .collect();
    assert!(maps.len() > 5 && maps.iter().all(|step| step["controls"] == json!(["ADM-2"])), "{plan:#}");
    let failed = run(&estate, &["apply", "--auto-approve"]).exits(1);
    assert!(
        failed.out.contains("if the namespace opa isn't ringfence's, install first what it belongs to"),
        "{}",
        failed.out
    );
    run(&estate, &["plan", "--detailed-exitcode"]).exits(2);
}

/// The platform's team installs Gatekeeper. Until then its control is unmet, and plans say so.
#[test]
fn without_gatekeeper_its_control_is_unmet() {
    let estate = estate("gatekeeper");
    let planned = run(&estate, &["plan"]).exits(1);
    assert!(planned.out.contains("doesn't serve templates.gatekeeper.sh/v1"), "{}", planned.out);
    assert!(planned.out.contains("control ADM-2 is unmet"), "{}", planned.out);
    // On 1.36, the API server itself fills in what is missing.
    assert!(!planned.out.contains("mutations.gatekeeper.sh"), "{}", planned.out);
    let applied = run(&estate, &["apply", "--auto-approve"]).exits(1);
    assert!(applied.out.contains("ADM-2"), "{}", applied.out);
}

#[test]
fn pod_security_policies_are_rendered_for_other_clusters() {
    let estate = Estate::new(&THREE_TIERS);
    estate.run(&["render", "--out", "native"]).exits(0);
    estate.run(&["render", "--out", "psp", "--policy-engine", "psp"]).exits(0);
    let files = |out: &str| {
        let mut files = BTreeSet::new();
        for owner in fs::read_dir(estate.path().join(out)).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir()) {
            files.extend(fs::read_dir(owner).unwrap().map(|e| e.unwrap().path()));
        }
        let kinds = files
            .iter()
            .map(|file| fs::read_to_string(file).unwrap())
            .filter_map(|text| text.lines().find_map(|line| line.strip_prefix("kind: ").map(str::to_owned)));
        kinds.fold(BTreeMap::<String, usize>::new(), |mut all, kind| {
            *all.entry(kind).or_default() += 1;
            all
        })
    };
    let (native, psp) = (files("native"), files("psp"));
    assert!(
        native.contains_key("ValidatingAdmissionPolicy") && !native.contains_key("PodSecurityPolicy"),
        "{native:?}"
    );
    assert!(!psp.keys().any(|kind| kind.contains("AdmissionPolicy")), "{psp:?}");
    assert_eq!(psp["PodSecurityPolicy"], native["Namespace"], "{psp:?}");
    assert_eq!(psp["NetworkPolicy"], native["NetworkPolicy"]);
    // Two clusters: the silo and the pool. Each has EKS's binding, mended.
    assert_eq!(psp["ClusterRoleBinding"] - native.get("ClusterRoleBinding").copied().unwrap_or_default(), 2, "{psp:?}");
}
