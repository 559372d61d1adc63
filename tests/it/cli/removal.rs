//! A tenant or a pool leaves the spec.

use super::*;

/// The spec without the tenants and pools whose items begin like this.
fn without(spec: &str, items: &[&str]) -> String {
    let mut out = String::new();
    let mut gone = false;
    for line in spec.split_inclusive('\n') {
        if !line.starts_with("     ") {
            gone = items.iter().any(|item| line.trim_end() == format!("    - {item}"));
        }
        if !gone {
            out.push_str(line);
        }
    }
    assert_ne!(out, spec);
    out
}

/// The steps in their order, each with what it comes after.
fn readable(plan: &Value) -> String {
    let mut out = String::new();
    for step in list(&plan["steps"]) {
        out.push_str(&format!("{} {}\n", text(&step["action"]), text(&step["address"])));
        for need in list(&step["needs"]) {
            out.push_str(&format!("    after {} {}\n", text(&need["action"]), text(&need["address"])));
        }
    }
    for kept in list(&plan["kept"]) {
        out.push_str(&format!("keep {}\n    because {}\n", text(&kept["address"]), text(&kept["reason"])));
    }
    for whole in list(&plan["confirm"]) {
        out.push_str(&format!("confirm {}\n", text(whole)));
    }
    for note in list(&plan["notes"]) {
        out.push_str(&format!("note {}\n", text(note)));
    }
    out
}

/// Takes `items` from the spec. `touches`: where all steps are. `whole`: what
/// must be allowed.
fn remove(example: &'static Example, items: &[&str], name: &str, touches: &[&str], whole: Option<&str>) {
    let estate = Estate::applied(example);
    estate.write(&without(&example.text(), items));
    let plan = estate.plan(&[]);
    for step in list(&plan["steps"]) {
        let address = text(&step["address"]);
        assert!(touches.iter().any(|t| address.starts_with(t)), "{name} touches {address}");
    }
    golden(&format!("removed-{name}.txt"), &readable(&plan));

    let confirm: Vec<&str> = list(&plan["confirm"]).iter().map(text).collect();
    assert_eq!(confirm, whole.into_iter().collect::<Vec<_>>());
    let mut apply = vec!["apply", "--auto-approve"];
    if let Some(whole) = whole {
        let before = estate.holds();
        let flag = format!("--allow-destroy {whole}");
        estate.run(&apply).refuses(&[whole, "nothing was changed", &flag]);
        estate.run(&[&apply[..], &["--allow-destroy", "tenant/other/silo"]].concat()).refuses(&[&flag]);
        assert_eq!(estate.holds(), before);
        apply.extend(["--allow-destroy", whole]);
    }
    estate.run(&apply).exits(0);
    let left = estate.plan(&[]);
    assert_eq!(steps(&left), [] as [&str; 0]);
    assert_eq!(left["kept"], plan["kept"], "what stays goes on being named");
}

#[test]
fn a_silo_tenant() {
    remove(&THREE_TIERS, &["id: \"12345\""], "silo-tenant", &["tenant/12345/silo/"], Some("tenant/12345/silo"));
}

#[test]
fn a_pool_tenant() {
    remove(&THREE_TIERS, &["id: \"23456\""], "pool-tenant", &["tenant/23456/pool/", "pool/shared-1/k8s/"], None);
}

#[test]
fn a_fargate_tenant() {
    remove(&THREE_TIERS, &["id: \"34567\""], "fargate-tenant", &["tenant/34567/fargate/", "pool/shared-1/k8s/"], None);
}

#[test]
fn a_pool_with_its_tenants() {
    let items = ["name: visby", "id: herring", "id: furs"];
    let touches = ["pool/visby/", "tenant/herring/", "tenant/furs/"];
    remove(&TWO_POOLS, &items, "pool", &touches, Some("pool/visby"));
}
