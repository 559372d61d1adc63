//! `--tenant`: that tenant's resources and nothing else.

use super::*;

#[test]
fn only_this_tenant_is_planned() {
    let estate = Estate::applied(&THREE_TIERS);
    estate.edit("cost-center: saas", "cost-center: research");
    let plan = estate.plan(&["--tenant", "23456"]);
    assert!(!steps(&plan).is_empty());
    for step in steps(&plan) {
        assert!(step.starts_with("update tenant/23456/"), "{step}");
    }
    let two = estate.plan(&["--tenant", "23456", "--tenant", "34567"]);
    let owners: BTreeSet<&str> = list(&two["steps"]).iter().map(|s| text(&s["owner"])).collect();
    assert_eq!(owners, ["tenant/23456", "tenant/34567"].into());

    estate.run(&["apply", "--auto-approve", "--tenant", "23456"]).exits(0);
    assert_eq!(steps(&estate.plan(&["--tenant", "23456"])), [] as [&str; 0]);
    let rest = estate.plan(&[]);
    assert!(steps(&rest).iter().all(|s| !s.contains("tenant/23456/")) && !steps(&rest).is_empty());
}

#[test]
fn a_tenant_without_its_pool_is_refused_by_name() {
    let estate = Estate::planted(&THREE_TIERS);
    let before = estate.holds();
    for command in [&["plan"][..], &["apply", "--auto-approve"]] {
        estate.run(&[command, &["--tenant", "23456"]].concat()).refuses(&["pool/shared-1", "--with-deps"]);
    }
    assert_eq!(estate.holds(), before);
}

#[test]
fn with_deps_brings_the_pool() {
    let estate = Estate::planted(&THREE_TIERS);
    let plan = estate.plan(&["--tenant", "23456", "--with-deps"]);
    let owners: BTreeSet<&str> = list(&plan["steps"]).iter().map(|s| text(&s["owner"])).collect();
    assert_eq!(owners, ["pool/shared-1", "tenancy", "tenant/23456"].into());
    estate.run(&["apply", "--auto-approve", "--tenant", "23456", "--with-deps"]).exits(0);
    assert_eq!(steps(&estate.plan(&["--tenant", "23456"])), [] as [&str; 0]);
    assert_eq!(steps(&estate.plan(&["--tenant", "23456", "--with-deps"])), [] as [&str; 0]);
    let other = estate.plan(&["--tenant", "34567", "--with-deps"]);
    let ours: Vec<String> = steps(&other).into_iter().filter(|s| !s.starts_with("create tenant/34567/")).collect();
    assert_eq!(ours, ["create tenancy/service-linked-role/eks-fargate"]);
}

#[test]
fn an_unknown_tenant_is_refused_with_the_known_ones() {
    let estate = Estate::new(&THREE_TIERS);
    estate.run(&["plan", "--tenant", "99999"]).refuses(&["99999", "12345, 23456, 34567"]);
}

#[test]
fn destroying_one_tenant_leaves_the_others() {
    let estate = Estate::applied(&THREE_TIERS);
    let home = "tenant/23456/pool/shared-1";
    estate.run(&["destroy", "--auto-approve", "--tenant", "23456", "--allow-destroy", home]).exits(0);
    let plan = estate.plan(&[]);
    assert!(!steps(&plan).is_empty());
    for step in steps(&plan) {
        assert!(step.starts_with("create tenant/23456/pool/shared-1/"), "{step}");
    }
}
