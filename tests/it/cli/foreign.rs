//! Resources of somebody else in the place of ours: the plan names them and
//! says how to hand them over. They are never changed.

use super::*;

/// An add-on that eksctl or the console made in our cluster doesn't have our
/// tags. CreateAddon refuses a second add-on of the same name
/// (`ResourceInUseException`: EKS API reference, "CreateAddon").
#[test]
fn an_add_on_without_our_tags() {
    let estate = Estate::applied(&SINGLE_SILO);
    let (address, cluster) = ("tenant/globex/silo/addon/metrics-server", "solo-t-globex");
    let arn = estate.sandbox(async |aws, server| {
        let addon = aws.eks.describe_addon().cluster_name(cluster).addon_name("metrics-server").send().await.unwrap();
        let version = addon.addon().unwrap().addon_version().unwrap().to_owned();
        aws.eks.delete_addon().cluster_name(cluster).addon_name("metrics-server").send().await.unwrap();
        server.advance(600.0);
        let call = aws.eks.create_addon().cluster_name(cluster).addon_name("metrics-server").addon_version(version);
        let made = call.send().await.unwrap();
        server.advance(600.0);
        made.addon().unwrap().addon_arn().unwrap().to_owned()
    });
    let before = estate.holds();
    let plan = estate.run(&["plan", "--format", "json"]).exits(1).json();
    assert_eq!(steps(&plan), [] as [&str; 0]);
    let [blocked] = list(&plan["blocked"]) else { panic!("{:#}", plan["blocked"]) };
    assert_eq!(blocked["address"], address);
    for what in ["exists without the tags", &format!("aws eks tag-resource --resource-arn {arn} --tags ")] {
        assert!(text(&blocked["reason"]).contains(what), "{blocked:#}");
    }
    estate.run(&["apply", "--auto-approve"]).exits(1);
    estate.run(&["drift"]).exits(2);
    assert_eq!(estate.holds(), before);

    // The printed command is sufficient.
    let tags = text(&blocked["reason"]).split("--tags ").nth(1).unwrap().split('`').next().unwrap().to_owned();
    estate.sandbox(async |aws, _| {
        let tags = tags.split(',').map(|t| t.split_once('=').unwrap()).map(|(k, v)| (k.to_owned(), v.to_owned()));
        aws.eks.tag_resource().resource_arn(&arn).set_tags(Some(tags.collect())).send().await.unwrap();
    });
    let plan = estate.plan(&[]);
    assert!(
        list(&plan["blocked"]).is_empty() && steps(&plan).iter().all(|s| *s == format!("update {address}")),
        "{plan:#}"
    );
    estate.run(&["apply", "--auto-approve"]).exits(0);
    assert_eq!(steps(&estate.plan(&[])), [] as [&str; 0]);
}
