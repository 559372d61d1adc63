//! A tenant moves to another tier or pool. It has two placements until the deletion of the old one is confirmed.

use super::*;

/// The two placements of a move: items of the spec, and addresses.
struct Move {
    example: &'static Example,
    /// The tenant's item in the spec, before and after.
    from: &'static str,
    to: &'static str,
    old: &'static str,
    new: &'static str,
    /// The pool of the new placement, if the same change adds it.
    pool: Option<&'static str>,
}

const SALT: &str = "      tier: standard
      pool: lubeck
      serviceAccounts:
        - name: ledger
          policies:
            - arn:aws:iam::123456789012:policy/salt-ledger
            - arn:aws:iam::aws:policy/AmazonSQSFullAccess
      overrides:
        nodes:
          architecture: arm64
          instanceTypes: [m7g.large, m6g.large]
          max: 5
";

const SALT_ON_FARGATE: &str = "      tier: serverless
      pool: lubeck
      serviceAccounts:
        - name: ledger
          policies: [arn:aws:iam::123456789012:policy/salt-ledger]
";

/// Every address of ours in tags and labels of the sandbox's resources.
fn addresses(estate: &Estate, within: &str) -> BTreeSet<String> {
    fn walk(value: &Value, within: &str, all: &mut BTreeSet<String>) {
        match value {
            Value::String(text) if text.starts_with(&format!("{within}/")) => {
                all.insert(text.clone());
            }
            Value::Array(items) => items.iter().for_each(|v| walk(v, within, all)),
            Value::Object(fields) => fields.values().for_each(|v| walk(v, within, all)),
            _ => {}
        }
    }
    let mut all = BTreeSet::new();
    walk(&estate.holds(), within, &mut all);
    all
}

/// Addresses that the plan keeps, each with the reason.
fn kept(plan: &Value) -> BTreeMap<&str, &str> {
    list(&plan["kept"]).iter().map(|k| (text(&k["address"]), text(&k["reason"]))).collect()
}

/// Asserts that the old placement is unchanged, except for objects that both placements share.
#[track_caller]
fn stands(estate: &Estate, old: &str, before: &BTreeSet<String>, shared: bool) {
    let now = addresses(estate, old);
    let lost: Vec<&String> = before.difference(&now).filter(|a| !shared || !a.contains("/k8s/")).collect();
    assert!(lost.is_empty(), "the old home has lost {lost:?}");
}

impl Move {
    /// True if both placements are in one cluster, and so share the namespace.
    fn shares(&self) -> bool {
        let pool = |home: &str| home.split('/').nth(3).map(str::to_owned);
        pool(self.old).is_some() && pool(self.old) == pool(self.new)
    }

    /// Applies the move. Returns the addresses of the old placement before it.
    #[track_caller]
    fn begin(&self, estate: &Estate) -> BTreeSet<String> {
        let before = addresses(estate, self.old);
        assert!(!before.is_empty(), "{} is there", self.old);
        estate.edit(self.from, self.to);
        if let Some(pool) = self.pool {
            estate.edit("  pools:\n", &format!("  pools:\n    - name: {pool}\n"));
        }
        let plan = estate.plan(&[]);
        assert_eq!(list(&plan["blocked"]), [] as [Value; 0]);
        assert_eq!(list(&plan["confirm"]), [] as [Value; 0]);
        // If the placements share the namespace, nothing uses the old priority class any more.
        let class = |s: &String| self.shares() && s.starts_with("delete pool/") && s.contains("priorityclass");
        let gone: Vec<String> = steps(&plan).into_iter().filter(|s| s.starts_with("delete ") && !class(s)).collect();
        assert_eq!(gone, [] as [&str; 0], "nothing goes before the new home stands");
        let why = kept(&plan);
        let why = why.get(self.old).unwrap_or_else(|| panic!("{} isn't kept: {why:?}", self.old));
        assert!(why.contains(self.new) && why.contains(&format!("--allow-destroy {}", self.old)), "{why}");
        // `--auto-approve` doesn't delete the old placement: without the confirmation, the plan has no step for it.
        estate.run(&["apply", "--auto-approve"]).exits(0);
        before
    }

    fn try_it(&self) {
        let estate = Estate::applied(self.example);
        let before = self.begin(&estate);
        stands(&estate, self.old, &before, self.shares());
        assert!(!addresses(&estate, self.new).is_empty());
        let both = estate.plan(&[]);
        assert_eq!(steps(&both), [] as [&str; 0], "the new home is whole");
        let said = estate.run(&["plan"]).exits(0).out;
        assert!(said.contains(self.old) && said.contains("--allow-destroy"), "{said}");

        let flag = ["--allow-destroy", self.old];
        let plan = estate.plan(&flag);
        let confirm: Vec<&str> = list(&plan["confirm"]).iter().map(|l| text(&l["address"])).collect();
        assert_eq!(confirm, [self.old]);
        assert!(!list(&plan["confirm"][0]["lost"]).is_empty());
        let id = self.old.split('/').nth(1).unwrap();
        let pools = ["delete pool/".to_owned(), format!("delete {}/", self.old)];
        for step in steps(&plan) {
            let prepares = step.starts_with(&format!("update {}/", self.old));
            assert!(prepares || pools.iter().any(|p| step.starts_with(p)), "{step} is of the old home of {id}");
        }
        estate.run(&[&["apply", "--auto-approve"][..], &flag].concat()).exits(0);
        let left = estate.plan(&[]);
        assert_eq!(steps(&left), [] as [&str; 0]);
        assert!(!kept(&left).contains_key(self.old));
        let left: Vec<String> = addresses(&estate, self.old)
            .into_iter()
            .filter(|a| !a.contains("/log-group/") && !a.ends_with("/key"))
            .collect();
        assert_eq!(left, [] as [&str; 0]);
        assert!(!addresses(&estate, self.new).is_empty());
    }
}

#[test]
fn from_a_pool_to_a_silo() {
    let from = "      tier: standard\n      pool: lubeck\n      serviceAccounts:";
    let to = "      tier: premium\n      serviceAccounts:";
    let (old, new) = ("tenant/salt/pool/lubeck", "tenant/salt/silo");
    Move { example: &TWO_POOLS, from, to, old, new, pool: None }.try_it();
}

#[test]
fn from_a_silo_to_a_pool() {
    let from = "      tier: premium                # isolation: silo\n";
    let to = "      tier: standard\n      pool: shared-1\n";
    let (old, new) = ("tenant/12345/silo", "tenant/12345/pool/shared-1");
    Move { example: &THREE_TIERS, from, to, old, new, pool: None }.try_it();
}

#[test]
fn from_a_pool_to_another() {
    let to = SALT.leak_for("lubeck", "visby");
    let (old, new) = ("tenant/salt/pool/lubeck", "tenant/salt/pool/visby");
    Move { example: &TWO_POOLS, from: SALT, to, old, new, pool: None }.try_it();
}

#[test]
fn from_a_pool_to_one_that_comes_with_it() {
    let to = SALT.leak_for("lubeck", "danzig");
    let (old, new) = ("tenant/salt/pool/lubeck", "tenant/salt/pool/danzig");
    Move { example: &TWO_POOLS, from: SALT, to, old, new, pool: Some("danzig") }.try_it();
}

#[test]
fn from_nodes_to_fargate_in_the_same_pool() {
    let (old, new) = ("tenant/salt/pool/lubeck", "tenant/salt/fargate/lubeck");
    Move { example: &TWO_POOLS, from: SALT, to: SALT_ON_FARGATE, old, new, pool: None }.try_it();
}

#[test]
fn from_fargate_to_nodes_in_the_same_pool() {
    let from = "      tier: serverless\n      pool: lubeck\n";
    let to = "      tier: standard\n      pool: lubeck\n";
    let (old, new) = ("tenant/amber/fargate/lubeck", "tenant/amber/pool/lubeck");
    Move { example: &TWO_POOLS, from, to, old, new, pool: None }.try_it();
}

#[test]
fn from_fargate_to_a_silo() {
    let from = "      tier: serverless\n      pool: lubeck\n";
    let to = "      tier: premium\n";
    let (old, new) = ("tenant/amber/fargate/lubeck", "tenant/amber/silo");
    Move { example: &TWO_POOLS, from, to, old, new, pool: None }.try_it();
}

#[test]
fn from_a_silo_to_fargate() {
    let from = "      tier: premium                # isolation: silo\n";
    let to = "      tier: serverless\n      pool: shared-1\n";
    let (old, new) = ("tenant/12345/silo", "tenant/12345/fargate/shared-1");
    Move { example: &THREE_TIERS, from, to, old, new, pool: None }.try_it();
}

/// The spec is reverted in the middle of the move.
#[test]
fn a_move_that_is_reverted_halfway() {
    let there = Move {
        example: &TWO_POOLS,
        from: SALT,
        to: SALT_ON_FARGATE,
        old: "tenant/salt/pool/lubeck",
        new: "tenant/salt/fargate/lubeck",
        pool: None,
    };
    let estate = Estate::applied(there.example);
    let before = there.begin(&estate);
    estate.edit(there.to, there.from);
    let plan = estate.plan(&[]);
    assert!(steps(&plan).iter().all(|s| !s.starts_with("delete ")), "{:?}", steps(&plan));
    assert!(kept(&plan)[there.new].contains(there.old));
    estate.run(&["apply", "--auto-approve"]).exits(0);
    assert_eq!(addresses(&estate, there.old), before, "it is whole, as if nothing had been");
    assert_eq!(steps(&estate.plan(&[])), [] as [&str; 0]);
    estate.run(&["apply", "--auto-approve", "--allow-destroy", there.new]).exits(0);
    assert_eq!(addresses(&estate, there.old), before);
    assert_eq!(addresses(&estate, there.new), BTreeSet::new());
}

/// The new placement fails. Then the old one isn't changed, although its deletion was confirmed.
#[track_caller]
fn fails(there: &Move, script: &str, what: &str) {
    let estate = Estate::applied(there.example);
    let before = addresses(&estate, there.old);
    estate.edit(there.from, there.to);
    let served = Served::start(&estate, None);
    served.server.set_faults(Script::parse(script).unwrap());
    let args = ["apply", "--auto-approve", "--no-preflight", "--allow-destroy", there.old];
    let run = against(&served.url(), &mut estate.bare(&args)).exits(1);
    assert!(run.out.contains(what) || run.err.contains(what), "{}{}", run.out, run.err);
    let Served { runtime, server, .. } = served;
    runtime.block_on(server.shutdown()).unwrap();
    assert_eq!(addresses(&estate, there.old), before, "every object of the old home is still its own");
    // Without the fault, the move is completed.
    let flag = ["--allow-destroy", there.old];
    estate.run(&[&["apply", "--auto-approve"][..], &flag].concat()).exits(0);
    assert_eq!(steps(&estate.plan(&[])), [] as [&str; 0]);
    assert!(!kept(&estate.plan(&[])).contains_key(there.old));
}

#[test]
fn a_failing_silo_keeps_the_former_placement() {
    let there = Move {
        example: &THREE_TIERS,
        from: "      tier: standard               # isolation: pool\n      pool: shared-1\n",
        to: "      tier: premium\n",
        old: "tenant/23456/pool/shared-1",
        new: "tenant/23456/silo",
        pool: None,
    };
    let script = "resources: [{kind: 'eks:nodegroup', name: '*-23456', times: 1, ends: CREATE_FAILED, because: {code: AsgInstanceLaunchFailures, message: no capacity}}]";
    fails(&there, script, "no capacity");
}

#[test]
fn a_failing_fargate_profile_keeps_the_former_nodes() {
    let there = Move {
        example: &TWO_POOLS,
        from: SALT,
        to: SALT_ON_FARGATE,
        old: "tenant/salt/pool/lubeck",
        new: "tenant/salt/fargate/lubeck",
        pool: None,
    };
    let script = "resources: [{kind: 'eks:fargate-profile', times: 1, ends: CREATE_FAILED, because: {code: AccessDenied, message: not today}}]";
    fails(&there, script, "not today");
}

/// A pool leaves the spec, and in the same change its tenants move to another
/// one.
#[test]
fn a_pool_is_kept_as_long_as_a_former_placement_in_it() {
    let estate = Estate::applied(&TWO_POOLS);
    let text = fs::read_to_string(estate.spec()).unwrap();
    let text = text.replace(
        "    - name: visby\n      kubernetesVersion: \"1.35\"\n      network:\n        natGateways: none\n",
        "",
    );
    estate.write(&text.replace("pool: visby", "pool: lubeck"));
    let plan = estate.plan(&["--allow-destroy", "pool/visby"]);
    let stays = kept(&plan);
    let homes = ["tenant/herring/pool/visby", "tenant/furs/fargate/visby"];
    assert!(homes.iter().all(|h| stays.contains_key(h)), "{stays:?}");
    assert!(stays["pool/visby"].contains("is in it"), "{stays:?}");
    assert!(steps(&plan).iter().all(|s| !s.starts_with("delete ")), "{:?}", steps(&plan));
    let all = ["--allow-destroy", "pool/visby", "--allow-destroy", homes[0], "--allow-destroy", homes[1]];
    let plan = estate.plan(&all);
    let made = |s: &&Value| {
        text_of(s, "action") == "create" && text_of(s, "address").starts_with("tenant/herring/pool/lubeck/")
    };
    let makes: Vec<String> = list(&plan["steps"]).iter().filter(made).map(|s| text_of(s, "address")).collect();
    assert!(!makes.is_empty());
    let cluster = list(&plan["steps"])
        .iter()
        .rfind(|s| text_of(s, "address") == "pool/visby/cluster" && text_of(s, "action") == "delete")
        .unwrap();
    let needs: Vec<String> = list(&cluster["needs"]).iter().map(|n| text_of(n, "address")).collect();
    assert!(makes.iter().all(|m| needs.contains(m)), "{needs:?}");
    estate.run(&[&["apply", "--auto-approve"][..], &all].concat()).exits(0);
    assert_eq!(steps(&estate.plan(&[])), [] as [&str; 0]);
}

/// An estate of an older version, whose addresses and names didn't contain the
/// pool. Its resources get new tags, and nothing is replaced.
#[test]
fn addresses_of_the_old_form() {
    let estate = Estate::applied(&THREE_TIERS);
    let state = fs::read_to_string(estate.state()).unwrap();
    // The nodes keep their image, too.
    let newest = "\"releaseVersion\":\"1.66.0-2d3f4b6c\"";
    assert!(state.contains(newest));
    let old = state
        .replace(newest, "\"releaseVersion\":\"1.63.0-7bb1c0d2\"")
        .replace("tenant/23456/pool/shared-1/", "tenant/23456/pool/")
        .replace("tenant/34567/fargate/shared-1/", "tenant/34567/fargate/")
        .replace("-t-23456-pool-shared-1-", "-t-23456-")
        .replace("-t-34567-fargate-shared-1-", "-t-34567-")
        .replace("/k8s/namespace/", "/k8s/namespace-")
        .replace("/k8s/clusternetworkpolicy.networking.k8s.aws/", "/k8s/clusternetworkpolicy-");
    assert_ne!(old, state);
    fs::write(estate.state(), old).unwrap();
    let plan = estate.plan(&[]);
    assert!(steps(&plan).iter().all(|s| s.starts_with("update ")), "{:?}", steps(&plan));
    let fields = list(&plan["steps"]).iter().flat_map(|s| list(&s["changes"])).map(|c| text(&c["path"]));
    assert_eq!(
        fields.filter(|f| !f.contains("ringfence.dev/address") && *f != "tags.Name").collect::<Vec<_>>(),
        [""; 0]
    );
    assert!(kept(&plan).is_empty());
    estate.run(&["apply", "--auto-approve"]).exits(0);
    assert_eq!(steps(&estate.plan(&[])), [] as [&str; 0]);
    assert!(addresses(&estate, "tenant/23456").iter().all(|a| a.starts_with("tenant/23456/pool/shared-1/")));
}

fn text_of(value: &Value, field: &str) -> String {
    text(&value[field]).to_owned()
}

trait LeakFor {
    fn leak_for(self, from: &str, to: &str) -> &'static str;
}

impl LeakFor for &str {
    fn leak_for(self, from: &str, to: &str) -> &'static str {
        self.replace(from, to).leak()
    }
}
