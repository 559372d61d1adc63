//! A tenant or a pool leaves the spec.

use super::*;

/// The spec without the tenants and pools whose items begin with these texts.
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

/// The steps in order, each with the steps on which it depends.
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
    for loss in list(&plan["confirm"]) {
        out.push_str(&format!("confirm {}\n", text(&loss["address"])));
        for lost in list(&loss["lost"]) {
            out.push_str(&format!("    lost: {}\n", text(lost)));
        }
        for kept in list(&loss["kept"]) {
            out.push_str(&format!("    kept: {}\n", text(kept)));
        }
    }
    for note in list(&plan["notes"]) {
        out.push_str(&format!("note {}\n", text(note)));
    }
    out
}

/// Removes `items` from the spec. `touches`: prefixes of the addresses of all
/// steps. `whole`: the addresses whose deletion must be confirmed.
fn remove(example: &'static Example, items: &[&str], name: &str, touches: &[&str], whole: &[&str]) {
    let estate = Estate::applied(example);
    estate.write(&without(&example.text(), items));
    let plan = estate.plan(&[]);
    for step in list(&plan["steps"]) {
        let address = text(&step["address"]);
        assert!(touches.iter().any(|t| address.starts_with(t)), "{name} touches {address}");
    }
    golden(&format!("removed-{name}.txt"), &readable(&plan));

    let confirm: Vec<&str> = list(&plan["confirm"]).iter().map(|l| text(&l["address"])).collect();
    assert_eq!(confirm, whole);
    for format in ["human", "markdown", "html"] {
        let out = estate.run(&["plan", "--format", format]).exits(0).out;
        // The human format wraps text, and other formats escape characters.
        let words = |text: &str| text.replace('>', " ").split_whitespace().collect::<Vec<_>>().join(" ");
        for lost in list(&plan["confirm"]).iter().flat_map(|l| list(&l["lost"])) {
            let start: String = text(lost).chars().take_while(|c| !"/-,:;'".contains(*c)).collect();
            assert!(words(&out).contains(start.trim()), "{format} doesn't say {start:?}: {out}");
        }
    }
    let before = estate.holds();
    let flags: Vec<String> = whole.iter().map(|w| format!("--allow-destroy {w}")).collect();
    let said = flags.join(" ");
    estate.run(&["apply", "--auto-approve"]).refuses(&[said.as_str(), "nothing was changed", "lost: "]);
    let wrong = format!("{}x", whole[0]);
    let near = format!("did you mean `{}`?", whole[0]);
    let unknown: [&str; 3] = ["no resource exists at the address", &wrong, &near];
    estate.run(&["apply", "--auto-approve", "--allow-destroy", &wrong]).refuses(&unknown);
    assert_eq!(estate.holds(), before);
    let mut apply = vec!["apply", "--auto-approve"];
    apply.extend(whole.iter().flat_map(|w| ["--allow-destroy", w]));
    estate.run(&apply).exits(0);
    let left = estate.plan(&[]);
    assert_eq!(steps(&left), [] as [&str; 0]);
    assert_eq!(left["kept"], plan["kept"], "what stays goes on being named");
}

#[test]
fn a_silo_tenant() {
    remove(&THREE_TIERS, &["id: \"12345\""], "silo-tenant", &["tenant/12345/silo/"], &["tenant/12345/silo"]);
}

#[test]
fn a_pool_tenant() {
    let touches = ["tenant/23456/pool/shared-1/", "pool/shared-1/k8s/"];
    remove(&THREE_TIERS, &["id: \"23456\""], "pool-tenant", &touches, &["tenant/23456/pool/shared-1"]);
}

#[test]
fn a_fargate_tenant() {
    let touches = ["tenant/34567/fargate/shared-1/", "pool/shared-1/k8s/"];
    remove(&THREE_TIERS, &["id: \"34567\""], "fargate-tenant", &touches, &["tenant/34567/fargate/shared-1"]);
}

/// A confirmation for a pool isn't one for the tenants in it.
#[test]
fn a_pool_with_its_tenants() {
    let items = ["name: visby", "id: herring", "id: furs"];
    let touches = ["pool/visby/", "tenant/herring/", "tenant/furs/"];
    let whole = ["pool/visby", "tenant/furs/fargate/visby", "tenant/herring/pool/visby"];
    remove(&TWO_POOLS, &items, "pool", &touches, &whole);
}

#[test]
fn a_tenant_by_its_id_alone() {
    for (id, home) in [
        ("12345", "tenant/12345/silo"),
        ("23456", "tenant/23456/pool/shared-1"),
        ("34567", "tenant/34567/fargate/shared-1"),
    ] {
        let estate = Estate::applied(&THREE_TIERS);
        let before = estate.holds();
        let destroy = ["destroy", "--tenant", id, "--auto-approve"];
        estate.run(&destroy).refuses(&[home, "lost: ", &format!("--allow-destroy {home}"), "nothing was changed"]);
        assert_eq!(estate.holds(), before);
        estate.run(&[&destroy[..], &["--allow-destroy", home]].concat()).exits(0);
    }
}

#[test]
fn an_unknown_address_is_refused() {
    let estate = Estate::applied(&THREE_TIERS);
    for (args, said) in [
        (["--allow-replace", "tenant/12345/silo/vpcc"], "did you mean `tenant/12345/silo/vpc`?"),
        (["--allow-destroy", "pool/shared-2"], "did you mean `pool/shared-1`?"),
        (["--allow-destroy", "somewhere-else-altogether"], "resources exist under pool/shared-1, tenancy"),
        (["--kubeconfig", "shared=none.yaml"], "did you mean `shared-1`?"),
    ] {
        estate.run(&[&["plan"][..], &args].concat()).refuses(&[said, "nothing was changed"]);
    }
}
