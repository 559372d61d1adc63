//! Changes of Kubernetes versions, and changes of other settings that existing resources may not follow.

use super::*;

/// The spec with another Kubernetes version.
fn at(estate: &Estate, from: &str, to: &str) {
    estate.edit(&format!("kubernetesVersion: \"{from}\""), &format!("kubernetesVersion: \"{to}\""));
}

fn runs(estate: &Estate) -> (String, Vec<String>) {
    estate.sandbox(async |aws, _| {
        let name = "solo-t-globex";
        let cluster = aws.eks.describe_cluster().name(name).send().await.unwrap();
        let groups = aws.eks.list_nodegroups().cluster_name(name).send().await.unwrap();
        let mut versions = Vec::new();
        for group in groups.nodegroups() {
            let group = aws.eks.describe_nodegroup().cluster_name(name).nodegroup_name(group).send().await.unwrap();
            versions.push(group.nodegroup().unwrap().version().unwrap().to_owned());
        }
        (cluster.cluster().unwrap().version().unwrap().to_owned(), versions)
    })
}

/// hashicorp/terraform-provider-kubernetes#1367: a cluster that runs the old version can't check objects of an API that
/// only the next version has.
#[test]
fn objects_whose_api_comes_with_the_upgrade() {
    let estate = Estate::new(&SINGLE_SILO);
    at(&estate, "1.36", "1.35");
    estate.run(&["apply", "--auto-approve"]).exits(0);
    at(&estate, "1.35", "1.36");
    let plan = estate.plan(&[]);
    let steps = list(&plan["steps"]);
    let mutating = |s: &&Value| text(&s["summary"]).starts_with("MutatingAdmissionPolicy");
    assert!(steps.iter().filter(mutating).count() > 1, "{:#?}", self::steps(&plan));
    for step in steps.iter().filter(mutating) {
        let needs: Vec<&str> = list(&step["needs"]).iter().map(|n| text(&n["address"])).collect();
        assert!(needs.contains(&"tenant/globex/silo/cluster"), "{} after {needs:?}", step["address"]);
    }
    let note = list(&plan["notes"]).iter().map(text).find(|n| n.contains("APIs"));
    assert!(note.is_some_and(|n| n.starts_with("tenant/globex/silo/cluster: ")), "{}", plan["notes"]);
    // Nodes are upgraded after the control plane, and the plan says so.
    let group = steps.iter().find(|s| s["address"] == "tenant/globex/silo/node-group/system").unwrap();
    assert_eq!((&group["changes"][0]["before"], &group["changes"][0]["after"]), (&"1.35".into(), &"1.36".into()));
    estate.run(&["apply", "--auto-approve"]).exits(0);
    assert_eq!(runs(&estate), ("1.36".to_owned(), vec!["1.36".to_owned(); 2]));
    assert_eq!(self::steps(&estate.plan(&[])), [] as [&str; 0]);
}

/// An API that no version of the cluster serves is a mistake in the template, with or without an upgrade.
#[test]
fn an_api_that_does_not_come() {
    let estate = Estate::applied(&SINGLE_SILO);
    let template = estate.path().join("templates/manifests/cluster");
    fs::create_dir_all(&template).unwrap();
    fs::write(template.join("w.yaml"), "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\n").unwrap();
    estate.run(&["plan", "--templates", "templates"]).refuses(&["doesn't serve example.com/v1 Widget", "`requires:`"]);
}

/// EKS upgrades one minor version at a time, and upgrades a control plane further only after its nodes
/// (hashicorp/terraform-provider-aws#19478, rancher/rancher#27777).
#[test]
fn one_minor_version_at_a_time() {
    let estate = Estate::new(&SINGLE_SILO);
    at(&estate, "1.36", "1.33");
    estate.run(&["apply", "--auto-approve"]).exits(0);
    at(&estate, "1.33", "1.35");
    let plan = estate.plan(&[]);
    let waits = &plan["blocked"][0];
    assert_eq!((text(&waits["address"]), &waits["pending"]), ("tenant/globex/silo/cluster", &Value::Bool(true)));
    assert!(text(&waits["reason"]).contains("this run upgrades to 1.34"), "{waits}");
    let run = estate.run(&["apply", "--auto-approve"]).exits(3);
    let said = format!("{}{}", run.out, run.err).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(!said.contains("bug in ringfence"), "{said}");
    assert!(said.contains("Kubernetes 1.35 needs another run") && said.contains("Apply incomplete"), "{said}");
    assert_eq!(runs(&estate), ("1.34".to_owned(), vec!["1.34".to_owned(); 2]));
    estate.run(&["apply", "--auto-approve"]).exits(0);
    assert_eq!(runs(&estate), ("1.35".to_owned(), vec!["1.35".to_owned(); 2]));
    assert_eq!(steps(&estate.plan(&[])), [] as [&str; 0]);
}

/// EKS user guide, "Roll back a cluster to a previous Kubernetes version".
#[test]
fn a_version_below_the_running_one() {
    let estate = Estate::new(&SINGLE_SILO);
    at(&estate, "1.36", "1.35");
    estate.run(&["apply", "--auto-approve"]).exits(0);
    at(&estate, "1.35", "1.34");
    let never = estate.run(&["plan"]).exits(1).out;
    let never = never.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(never.contains("the cluster runs Kubernetes 1.35, and EKS can't roll it back to 1.34"), "{never}");
    assert!(!never.contains("No changes"), "{never}");
    at(&estate, "1.34", "1.36");
    estate.run(&["apply", "--auto-approve"]).exits(0);
    at(&estate, "1.36", "1.35");
    let plan = estate.run(&["plan", "--format", "json"]).exits(1).json();
    assert_eq!(steps(&plan), [] as [&str; 0], "nothing is done by itself");
    let reason = text(&plan["blocked"][0]["reason"]);
    assert!(reason.starts_with("the cluster runs Kubernetes 1.36; EKS can roll it back to 1.35 until 20"), "{reason}");
    let help = text(&plan["blocked"][0]["help"]);
    assert!(help.contains("update-nodegroup-version") && help.contains("update-cluster-version"), "{help}");

    // As the message says, nodes are rolled back first. Apply doesn't upgrade them again in between.
    let back = |group: Option<&'static str>| {
        estate.sandbox(async move |aws, _| {
            let name = "solo-t-globex";
            match group {
                Some(group) => {
                    let call = aws.eks.update_nodegroup_version().cluster_name(name).nodegroup_name(group);
                    call.version("1.35").send().await.map(drop).map_err(|e| format!("{:?}", e.into_service_error()))
                }
                None => {
                    let call = aws.eks.update_cluster_version().name(name).version("1.35").send().await;
                    call.map(drop).map_err(|e| format!("{:?}", e.into_service_error()))
                }
            }
        })
    };
    assert!(back(None).is_err_and(|e| e.contains("Kubelet version skew")), "its nodes are ahead");
    back(Some("system")).unwrap();
    settle(&estate);
    assert_eq!(steps(&estate.run(&["plan", "--format", "json"]).exits(1).json()), [] as [&str; 0]);
    back(Some("t-globex")).unwrap();
    settle(&estate);
    back(None).unwrap();
    settle(&estate);
    assert_eq!(runs(&estate), ("1.35".to_owned(), vec!["1.35".to_owned(); 2]));
    estate.run(&["apply", "--auto-approve"]).exits(0);
    assert_eq!(steps(&estate.plan(&[])), [] as [&str; 0]);
}

/// Waits until no update is in progress.
fn settle(estate: &Estate) {
    estate.sandbox(async |aws, _| {
        let name = "solo-t-globex";
        loop {
            let mut active = true;
            let cluster = aws.eks.describe_cluster().name(name).send().await.unwrap();
            active &= cluster.cluster().unwrap().status().unwrap().as_str() == "ACTIVE";
            for group in ["system", "t-globex"] {
                let group = aws.eks.describe_nodegroup().cluster_name(name).nodegroup_name(group).send().await.unwrap();
                active &= group.nodegroup().unwrap().status().unwrap().as_str() == "ACTIVE";
            }
            if active {
                return;
            }
            Clock::real().sleep(std::time::Duration::from_millis(50)).await;
        }
    });
}

/// A VPC keeps its CIDR block, even if the spec changes later.
#[test]
fn a_block_that_the_spec_moves() {
    let estate = Estate::applied(&SINGLE_SILO);
    estate.edit("supernet: 10.128.0.0/16", "supernet: 10.96.0.0/16");
    let says = "isn't within network.supernet 10.96.0.0/16";
    for args in [&["plan"][..], &["apply", "--auto-approve"]] {
        let run = estate.run(args).exits(1);
        let said = run.out.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains(says) && !said.contains("match the spec"), "{args:?}: {said}");
    }
    // This isn't drift: nobody changed the VPC.
    estate.run(&["drift"]).exits(0);
}

/// An existing VPC keeps its size, and new ones get the new size. So a full supernet can get room for more VPCs.
#[test]
fn a_block_of_another_size() {
    let estate = Estate::applied(&SINGLE_SILO);
    estate.edit("vpcPrefix: 20", "vpcPrefix: 21");
    let plan = estate.plan(&[]);
    assert_eq!(steps(&plan), [] as [&str; 0]);
    let note = list(&plan["notes"]).iter().map(text).find(|n| n.contains("network.vpcPrefix 21")).unwrap();
    assert!(note.starts_with("tenant/globex/silo/vpc: the VPC keeps its block 10.128.0.0/20"), "{note}");
}

/// A cluster keeps its service addresses, and everything that names them uses the cluster's. Otherwise DNS couldn't
/// reach the API server.
#[test]
fn service_addresses_stay_together() {
    let estate = Estate::applied(&SINGLE_SILO);
    estate.edit("flowLogs: true", "flowLogs: true\n    serviceCidr: 172.24.0.0/16");
    let plan = estate.run(&["plan", "--format", "json"]).exits(1).json();
    assert_eq!(steps(&plan), [] as [&str; 0]);
    assert_eq!(text(&plan["blocked"][0]["changes"][0]["path"]), "service_cidr");
    let allowed = ["plan", "--format", "json", "--allow-replace", "tenant/globex/silo/cluster"];
    let plan = estate.run(&allowed).exits(0).json();
    assert!(steps(&plan).contains(&"create tenant/globex/silo/cluster".to_owned()), "{:?}", steps(&plan));
}

/// Each setting that is changed after an apply gives a change, a blocked change or a note. None is ignored silently.
#[test]
fn no_setting_is_ignored() {
    let estate = Estate::applied(&SINGLE_SILO);
    let spec = SINGLE_SILO.text();
    let own = "nodes: {instanceTypes: [m7i.large], min: 2, max: 3, desired: 2}";
    let overrides = |more: &str| (own.to_owned(), format!("{own}\n        {more}"));
    let nodes = |nodes: &str| (own.to_owned(), format!("nodes: {{{nodes}}}"));
    let other = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    let edits = [
        other("kubernetesVersion: \"1.36\"", "kubernetesVersion: \"1.37\""),
        other("kubernetesVersion: \"1.36\"", "kubernetesVersion: \"1.35\""),
        other("kubernetesVersion: \"1.36\"", "kubernetesVersion: \"1.34\""),
        other("supernet: 10.128.0.0/16", "supernet: 10.96.0.0/16"),
        other("vpcPrefix: 20", "vpcPrefix: 21"),
        other("natGateways: single", "natGateways: per-zone"),
        other("endpoints: [s3]", "endpoints: [s3, dynamodb]"),
        other("endpoints: [s3]", "endpoints: []"),
        other("flowLogs: true", "flowLogs: false"),
        other("flowLogs: true", "flowLogs: true\n    serviceCidr: 172.24.0.0/16"),
        other("203.0.113.0/24", "198.51.100.0/24"),
        other("  access:\n", "  access:\n    privateSources: [10.0.0.0/16]\n"),
        other("  access:\n", "  access:\n    operators: [arn:aws:iam::123456789012:role/ringfence]\n"),
        other("role/PlatformAdmin", "role/Another"),
        // Only the gateway reads `tenants[].access`, and only `kubeconfig` reads `gateway.url`.
        other(
            "  access:\n",
            "  gateway: {url: https://gateway.example, role: \"arn:aws:iam::123456789012:role/gateway\"}\n  access:\n",
        ),
        other("  access:\n", "  tags: {team: a}\n  access:\n"),
        nodes("instanceTypes: [m7i.xlarge], min: 2, max: 3, desired: 2"),
        nodes("instanceTypes: [m7i.large], min: 1, max: 3, desired: 2"),
        nodes("instanceTypes: [m7i.large], min: 2, max: 4, desired: 2"),
        nodes("instanceTypes: [m7i.large], min: 2, max: 3, desired: 2, capacityType: spot"),
        nodes("instanceTypes: [m7i.large], min: 2, max: 3, desired: 2, dataVolume: {sizeGiB: 120}"),
        nodes("instanceTypes: [m7i.large], min: 2, max: 3, desired: 2, rootVolume: {sizeGiB: 8, type: gp3}"),
        nodes("instanceTypes: [m7i.large], min: 2, max: 3, desired: 2, podPidsLimit: 2048"),
        nodes("instanceTypes: [m7i.large], min: 2, max: 3, desired: 2, fips: true"),
        overrides("systemNodes: {max: 5}"),
        overrides("systemNodes: {instanceTypes: [m7g.xlarge]}"),
        overrides("cluster: {logTypes: [audit]}"),
        overrides("cluster: {logRetentionDays: 400}"),
        overrides("cluster: {deletionProtection: false}"),
        overrides("cluster: {upgradePolicy: extended}"),
        overrides("cluster: {kms: {deletionWindowDays: 7}}"),
        overrides("cluster: {kms: {rotationDays: 400}}"),
        overrides("network: {flowLogRetentionDays: 120}"),
        overrides("addons: {coredns: {configuration: {replicaCount: 3}}}"),
        overrides("addons: {vpc-cni: {version: v1.23.0-eksbuild.1}}"),
        overrides("namespace: {quota: {pods: \"201\"}}"),
        overrides("namespace: {limits: {max: {cpu: \"4\"}}}"),
        overrides("pods: {allowedRegistries: [account-ecr, registry.example.com/acme]}"),
        overrides("pods: {allowedCapabilities: []}"),
        overrides("pods: {seccompProfiles: [profiles/audit.json]}"),
        overrides("sessions: {exec: true}"),
        overrides("sessions: {portForward: true}"),
        overrides("sessions: {ephemeralContainers: true}"),
        overrides("exposure: {loadBalancers: false}\n        namespace: {quota: {services.loadbalancers: \"0\"}}"),
    ];
    let mut silent = Vec::new();
    for (from, to) in &edits {
        estate.write(&spec);
        estate.edit(from, to);
        let run = estate.run(&["plan", "--format", "json"]);
        let plan = run.json();
        assert_eq!(plan["type"], "plan", "{to}: {}{}", run.out, run.err);
        let says =
            !list(&plan["steps"]).is_empty() || !list(&plan["blocked"]).is_empty() || !list(&plan["notes"]).is_empty();
        if !says {
            silent.push(to);
        }
    }
    assert!(silent.is_empty(), "{silent:#?}");
}
