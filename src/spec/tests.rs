#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use jiff::civil::{Date, date};
use proptest::prelude::*;

use super::error::Code;
use super::names::{self, Names};
use super::*;

const TODAY: Date = date(2026, 11, 23);

const EXAMPLES: &[(&str, &str)] = &[
    ("pool-of-twenty", include_str!("../../examples/pool-of-twenty/tenancy.yaml")),
    ("regulated", include_str!("../../examples/regulated/tenancy.yaml")),
    ("single-silo", include_str!("../../examples/single-silo/tenancy.yaml")),
    ("three-tiers", include_str!("../../examples/three-tiers/tenancy.yaml")),
    ("two-pools", include_str!("../../examples/two-pools/tenancy.yaml")),
    ("gateway", include_str!("../../examples/gateway/tenancy.yaml")),
];

const BASE: &str = r#"apiVersion: ringfence.dev/v1alpha1
kind: Tenancy
metadata:
  name: acme
spec:
  region: us-east-1
  accountId: "123456789012"
  kubernetesVersion: "1.36"
  network:
    supernet: 10.64.0.0/12
    vpcPrefix: 16
    zones: 3
    natGateways: per-zone
    endpoints: [s3]
    flowLogs: true
  access:
    endpoint: private
    allowedCidrs: []
    admins: []
    operators: []
  tags: {}
  pools:
    - name: shared-1
  tenants:
    - id: "12345"
      name: globex
      tier: premium
      overrides: {}
      waivers: []
    - id: "23456"
      name: initech
      tier: standard
      pool: shared-1
      serviceAccounts: []
      overrides: {}  # of the pool tenant
    - id: "34567"
      name: umbrella
      tier: serverless
      pool: shared-1
"#;

fn try_load(text: &str) -> Result<Spec, SpecErrors> {
    load(Path::new("tenancy.yaml"), text, &LoadOptions { profiles_dir: None, today: TODAY })
}

fn loaded(text: &str) -> Spec {
    try_load(text).unwrap_or_else(|errors| panic!("{errors}"))
}

/// `BASE` with one piece of text replaced.
fn edited(from: &str, to: &str) -> String {
    assert_eq!(BASE.matches(from).count(), 1, "{from:?} must be in BASE once");
    BASE.replace(from, to)
}

/// Removes the marks `⟦…⟧` from a text. Returns the marked places, as line, column and length: errors must be shown
/// there.
fn unmarked(text: &str) -> (String, Vec<(usize, usize, usize)>) {
    let mut marks = Vec::new();
    let mut plain = String::new();
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let mut column = 1;
        let mut start = None;
        for c in line.chars() {
            match c {
                '⟦' => start = Some(column),
                '⟧' => {
                    let start = start.take().expect("⟦ before ⟧");
                    marks.push((number + 1, start, column - start));
                }
                c => {
                    plain.push(c);
                    column += 1;
                }
            }
        }
    }
    (plain, marks)
}

/// Loads a text with marks. Expects one error at each mark, with these messages in this order, and no other errors.
fn expect(text: &str, messages: &[&str]) -> Vec<SpecError> {
    let (plain, marks) = unmarked(text);
    let errors = match try_load(&plain) {
        Ok(_) => panic!("accepted, though wrong: {messages:?}"),
        Err(SpecErrors(errors)) => errors,
    };
    let found: Vec<_> = errors.iter().map(|e| (e.at.line, e.at.column, e.at.length, e.message.as_str())).collect();
    let wanted: Vec<_> = marks.iter().zip(messages).map(|(m, text)| (m.0, m.1, m.2, *text)).collect();
    assert_eq!(marks.len(), messages.len(), "a mark for each message");
    assert_eq!(found, wanted, "\n{}", SpecErrors(errors.clone()));
    for error in &errors {
        let lines: Vec<&str> = plain.lines().collect();
        assert!(lines[error.at.line - 1].contains(&error.at.text), "the line itself: {error}");
        assert!(error.help.as_ref().is_some_and(|h| !h.is_empty()), "says what would be right: {error}");
    }
    errors
}

fn case(from: &str, to: &str, messages: &[&str]) -> Vec<SpecError> {
    expect(&edited(from, to), messages)
}

fn help(errors: &[SpecError]) -> &str {
    errors[0].help.as_deref().unwrap_or_default()
}

/// `BASE` with these overrides and waivers for the silo.
fn silo(overrides: &str, waivers: &str) -> String {
    edited("overrides: {}\n      waivers: []", &format!("overrides: {overrides}\n      waivers: {waivers}"))
}

/// `BASE` with these overrides for the pool tenant.
fn pooled(overrides: &str) -> String {
    edited("overrides: {}  # of the pool tenant", &format!("overrides: {overrides}"))
}

// ---------------------------------------------------------------------------------------
// Valid specs
// ---------------------------------------------------------------------------------------

#[test]
fn examples_are_accepted_without_warnings() {
    for (name, text) in EXAMPLES {
        let spec = loaded(text);
        assert!(spec.warnings.is_empty(), "{name}: {:?}", spec.warnings);
    }
}

#[test]
fn the_base_of_these_tests_is_right() {
    assert!(loaded(BASE).warnings.is_empty());
}

#[test]
fn three_tiers_resolve_to_three_isolation_models() {
    let spec = loaded(EXAMPLES[3].1);
    assert_eq!((spec.name.as_str(), spec.region.as_str(), spec.partition()), ("acme", "us-east-1", "aws"));
    let isolation: Vec<_> = spec.tenants.iter().map(|t| (t.id.as_str(), &t.isolation)).collect();
    let pool = || "shared-1".to_owned();
    assert_eq!(
        isolation,
        [
            ("12345", &Isolation::Silo),
            ("23456", &Isolation::Pool { pool: pool() }),
            ("34567", &Isolation::Fargate { pool: pool() })
        ]
    );
    let owners: Vec<_> = spec.clusters().map(|c| c.owner).collect();
    assert_eq!(owners, [Owner::Pool("shared-1"), Owner::Tenant("12345")]);
    assert_eq!(spec.tenants_of("shared-1").count(), 2);
    let umbrella = spec.tenant("34567").unwrap();
    assert_eq!(umbrella.profile.namespace.quota["pods"].0, "40", "the override");
    assert_eq!(umbrella.profile.namespace.quota["requests.cpu"].0, "6", "the tier's");
    assert_eq!(spec.cluster_of(umbrella).unwrap().owner, Owner::Pool("shared-1"));
    assert_eq!(umbrella.namespace(), "t-34567");
    assert_eq!(spec.access.admins[0].name(), "PlatformAdmin");
}

#[test]
fn the_most_specific_network_setting_applies() {
    let spec = loaded(EXAMPLES[4].1);
    assert_eq!(spec.pool("lubeck").unwrap().network.nat_gateways, NatGateways::PerZone);
    let visby = spec.pool("visby").unwrap();
    assert_eq!(visby.network.nat_gateways, NatGateways::None);
    assert_eq!(visby.kubernetes_version.to_string(), "1.35");
    assert_eq!(visby.network.flow_log_retention_days, 90);
    assert!(visby.network.endpoints.is_sorted());
    let civic = loaded(EXAMPLES[1].1);
    let silo = civic.tenants[0].silo.as_ref().unwrap();
    assert_eq!(silo.network.flow_log_retention_days, 2557);
    assert!(civic.tenants[0].profile.nodes.fips && civic.tenants[0].profile.system_nodes.fips);
    assert_eq!(civic.partition(), "aws-us-gov");
}

#[test]
fn sessions_stand_for_their_role() {
    let arn = "arn:aws:sts::123456789012:assumed-role/Admin/me@example.com";
    let spec = loaded(&edited("admins: []", &format!("admins: [{arn:?}]")));
    let admin = &spec.access.admins[0];
    assert_eq!((admin.arn.as_str(), admin.session), ("arn:aws:iam::123456789012:role/Admin", true));
}

#[test]
fn what_is_empty_is_absent() {
    let text = BASE
        .replace("accountId: \"123456789012\"", "accountId:")
        .replace("tags: {}", "tags:")
        .replace("overrides: {}\n", "overrides:\n");
    let spec = loaded(&text);
    assert!(spec.account_id.is_none() && spec.tags.is_empty());
}

#[test]
fn anchors_and_merge_keys_work() {
    let text = BASE.replace(
        "    - id: \"23456\"\n      name: initech\n      tier: standard\n      pool: shared-1\n",
        "    - &a\n      id: \"23456\"\n      name: initech\n      tier: standard\n      pool: shared-1\n    - <<: *a\n      id: second\n      name: other\n",
    );
    // The rest of the first tenant's fields now belong to the second.
    let spec = loaded(&text);
    assert_eq!(spec.tenant("second").unwrap().tier, "standard");
}

// ---------------------------------------------------------------------------------------
// Invalid YAML
// ---------------------------------------------------------------------------------------

#[test]
fn broken_yaml_is_shown_where_it_breaks() {
    expect("a: ⟦\"⟧x\n", &["not valid YAML: unclosed quote"]);
    let errors = expect("a:\n\t⟦b⟧: 1\n", &["not valid YAML: tabs disallowed within this context (block indentation)"]);
    assert_eq!(help(&errors), "indent with spaces; YAML allows no tabs");
    expect("a: 1\n⟦---⟧\nb: 2\n", &["a second document begins here"]);
    expect("? ⟦[⟧a]\n: b\n", &["a key must be plain text"]);
}

#[test]
fn files_without_a_document_are_empty() {
    for text in ["", "\n\n", "# nothing\n", "---\n", "~\n"] {
        let errors = try_load(text).unwrap_err().0;
        assert_eq!((errors.len(), errors[0].message.as_str(), errors[0].at.line), (1, "the file is empty", 0));
        assert_eq!(
            errors[0].to_string(),
            "tenancy.yaml: the file is empty\n  help: `ringfence schema` prints the structure of a tenancy\n"
        );
    }
}

#[test]
fn hostile_yaml_is_refused_fast() {
    let first = |text: &str| try_load(text).unwrap_err().0[0].message.clone();
    assert_eq!(
        first(&"a: 1\n".repeat(300_000)),
        "the file has more than 1048576 bytes, which is the limit for a tenancy"
    );
    assert_eq!(first(&("[".repeat(200) + &"]".repeat(200))), "the value is nested more than 64 levels deep");
    assert_eq!(first(&"- ".repeat(500)), "the value is nested more than 64 levels deep");
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    let mut tower = "a0: &a0 [x]\n".to_owned();
    for i in 1..100 {
        let last = i - 1;
        bomb.push_str(&format!("a{i}: &a{i} [{}]\n", vec![format!("*a{last}"); 10].join(",")));
        tower.push_str(&format!("a{i}: &a{i} [*a{last}]\n"));
    }
    assert_eq!(first(&bomb), "the file holds more than 250000 values after aliases are expanded");
    assert_eq!(first(&tower), "the value is nested more than 64 levels deep");
    assert_eq!(first("a: &a [*a]\n"), "this alias refers to a value that contains the alias");
    assert_eq!(first("a: *nowhere\n"), "there is no anchor `nowhere` before this alias");
    assert_eq!(first("a: !!python/object x\n"), "the YAML tag `!!python/object` isn't supported");
}

#[test]
fn many_mistakes_are_counted_and_cut() {
    let text: String = (0..5000).map(|i| format!("k{i}: 1\n")).collect();
    let errors = try_load(&text).unwrap_err().0;
    assert_eq!(errors.len(), 201);
    assert_eq!(errors[200].message, "4804 more errors aren't shown");
}

#[test]
fn a_long_line_is_shown_around_its_mark() {
    let text = format!("{{{} apiVersion: wrong}}\n", "x: 1,".repeat(100).replace("x: 1,", &" ".repeat(5)));
    let errors = try_load(&text).unwrap_err().0;
    let error = errors.iter().find(|e| e.code == Code::BadValue).unwrap();
    let marked: String = error.at.text.chars().skip(error.at.text_column - 1).take(error.at.length).collect();
    assert_eq!(marked, "wrong");
    assert!(error.at.text.chars().count() <= 160);
}

#[test]
fn duplicate_keys_show_both_places() {
    let errors = case("    zones: 3\n", "    zones: 3\n    ⟦zones⟧: 4\n", &["`zones` is given twice"]);
    assert_eq!(errors[0].path, "spec.network.zones");
    let related = errors[0].related.as_ref().unwrap();
    assert_eq!((related.at.line, related.at.column), (12, 5));
    assert_eq!(
        errors[0].to_string(),
        "tenancy.yaml:13:5: spec.network.zones: `zones` is given twice\n  13 |     zones: 4\n     |     ^^^^^\n\
         tenancy.yaml:12:5: `zones` is first given here\n  12 |     zones: 3\n     |     ^^^^^\n  help: keep one of the two\n"
    );
}

// ---------------------------------------------------------------------------------------
// Structure
// ---------------------------------------------------------------------------------------

#[test]
fn unknown_fields_name_the_nearest() {
    let errors = case("  region: us", "  ⟦regoin⟧: us", &["there is no field `regoin`"]);
    assert_eq!(
        (errors[0].code, errors[0].path.as_str(), help(&errors)),
        (Code::UnknownField, "spec.regoin", "did you mean `region`?")
    );
    let errors = case(
        "      pool: shared-1\n      serviceAccounts",
        "      pool: shared-1\n      ⟦service_account⟧",
        &["there is no field `service_account`"],
    );
    assert_eq!(help(&errors), "did you mean `serviceAccounts`?");
    let errors = expect(&silo("{namespace: {⟦qota⟧: {pods: 9}}}", "[]"), &["there is no field `qota`"]);
    assert_eq!(errors[0].path, "spec.tenants[0].overrides.namespace.qota");
}

#[test]
fn missing_fields_are_shown_at_their_mapping() {
    let text = BASE.replace("  region: us-east-1\n", "").replace("\nspec:", "\n⟦spec⟧:");
    let errors = expect(&text, &["`region` is missing"]);
    assert_eq!(errors[0].code, Code::MissingField);
    assert_eq!(help(&errors), "add `region: \"us-east-1\"`. The AWS region. The region of the environment is ignored.");
    let text = edited("    - id: \"12345\"\n      name: globex\n", "    - ⟦id⟧: \"12345\"\n");
    assert_eq!(expect(&text, &["`name` is missing"])[0].path, "spec.tenants[0].name");
}

#[test]
fn wrong_types_say_what_was_found() {
    let errors = case("id: \"12345\"", "id: ⟦12345⟧", &["the value must be text, but it is the number 12345"]);
    assert_eq!((errors[0].code, help(&errors)), (Code::WrongType, "put it in quotes: \"12345\""));
    let errors = case("\"1.36\"", "⟦1.30⟧", &["the value must be text, but it is the number 1.30"]);
    assert_eq!(help(&errors), "put it in quotes: \"1.30\"");
    let errors =
        case("flowLogs: true", "flowLogs: ⟦yes⟧", &["the value must be `true` or `false`, but it is the text `yes`"]);
    assert_eq!(help(&errors), "write `true`");
    let errors = case("zones: 3", "zones: ⟦\"3\"⟧", &["the value must be a whole number, but it is the text `3`"]);
    assert_eq!(help(&errors), "write it without quotes: 3");
    let errors = case("endpoints: [s3]", "endpoints: ⟦s3⟧", &["the value must be a list, but it is the text `s3`"]);
    assert_eq!(help(&errors), "write a list: [s3]");
    case("zones: 3", "zones: ⟦2.5⟧", &["the value must be a whole number, but it is the number 2.5"]);
    case("  tags: {}", "  tags: {a: ⟦[b]⟧}", &["the value must be text, but it is a list"]);
    case("    - name: shared-1", "    - ⟦shared-1⟧", &["the value must be a mapping, but it is the text `shared-1`"]);
}

#[test]
fn values_out_of_range_name_the_range() {
    assert_eq!(help(&case("zones: 3", "zones: ⟦7⟧", &["7 is out of range"])), "allowed: 2 to 6");
    assert_eq!(help(&case("vpcPrefix: 16", "vpcPrefix: ⟦8⟧", &["8 is out of range"])), "allowed: 16 to 28");
    let errors = case("per-zone", "⟦per-zon⟧", &["`per-zon` is not a possible value"]);
    assert_eq!(help(&errors), "did you mean `per-zone`?");
    let errors = case("[s3]", "[s3, ⟦ecr.ap⟧]", &["`ecr.ap` is not a possible value"]);
    assert_eq!((errors[0].path.as_str(), help(&errors)), ("spec.network.endpoints[1]", "did you mean `ecr.api`?"));
    let long = "a".repeat(33);
    let errors = case("  name: acme", &format!("  name: ⟦{long}⟧"), &["the value has 33 characters"]);
    assert_eq!(help(&errors), "allowed: 1 to 32 characters");
}

// ---------------------------------------------------------------------------------------
// Names and references
// ---------------------------------------------------------------------------------------

#[test]
fn invalid_names_are_refused() {
    case("  name: acme", "  name: ⟦Acme⟧", &["`Acme` is not a valid name for a tenancy"]);
    case("  name: acme", "  name: ⟦sg-prod⟧", &["`sg-prod` is not a valid name for a tenancy"]);
    case("  name: acme", "  name: ⟦acme-p⟧", &["`acme-p` is not a valid name for a tenancy"]);
    let errors = case("id: \"12345\"", "id: ⟦Globex-1⟧", &["`Globex-1` is not a valid tenant id"]);
    assert_eq!(help(&errors), "use 1 to 32 lowercase letters and digits, such as `globex1`");
    case("name: globex", "name: ⟦globex & co⟧", &["`globex & co` is not a valid name for a tenant"]);
    case("name: globex", "name: ⟦\" globex\"⟧", &["` globex` is not a valid name for a tenant"]);
    let text = BASE.replace("shared-1", "Shared_1").replace("- name: Shared_1", "- name: ⟦Shared_1⟧");
    expect(&text, &["`Shared_1` is not a valid name for a pool"]);
    let text = BASE.replace("shared-1", "shared-g2").replace("- name: shared-g2", "- name: ⟦shared-g2⟧");
    expect(&text, &["`shared-g2` is not a valid name for a pool"]);
}

#[test]
fn ids_and_names_are_unique() {
    let errors = case("id: \"23456\"", "id: ⟦\"12345\"⟧", &["`12345` is given twice"]);
    let first = &errors[0].related.as_ref().unwrap().at;
    assert_eq!((errors[0].code, first.line, first.column), (Code::Duplicate, 25, 11));
    case("name: initech", "name: ⟦globex⟧", &["`globex` is given twice"]);
    let text = BASE.replace("shared-1", "pool1").replace("id: \"12345\"", "id: ⟦pool1⟧");
    expect(&text, &["`pool1` is given twice"]);
    case("    - name: shared-1", "    - name: shared-1\n    - name: ⟦shared-1⟧", &["`shared-1` is given twice"]);
}

#[test]
fn user_ids_that_collide_are_found() {
    let mut seen = std::collections::HashMap::new();
    let (a, b) =
        (0u32..).find_map(|i| seen.insert(uid_range(&i.to_string()).first, i).map(|other| (other, i))).unwrap();
    let range = uid_range(&a.to_string());
    let text = BASE.replace("\"23456\"", &format!("\"{a}\"")).replace("\"34567\"", &format!("⟦\"{b}\"⟧"));
    let message = format!("tenant `{b}` gets the same user IDs as tenant `{a}` ({}–{})", range.first, range.last);
    expect(&text, &[&message]);
}

#[test]
fn tiers_and_pools_must_exist_and_fit() {
    let errors = case("tier: premium", "tier: ⟦premum⟧", &["there is no tier `premum`"]);
    assert_eq!((errors[0].code, help(&errors)), (Code::UnknownName, "did you mean `premium`?"));
    case("tier: premium", "tier: ⟦shared⟧", &["the profile `shared` is for a pool's cluster"]);
    case(
        "tier: premium",
        "tier: ⟦baseline⟧",
        &["the profile `baseline` has no `isolation`, so it can only be a base for other profiles"],
    );
    case(
        "    - name: shared-1",
        "    - name: shared-1\n      profile: ⟦premium⟧",
        &["the profile `premium` is for a silo"],
    );
    let errors = case(
        "pool: shared-1\n      serviceAccounts",
        "pool: ⟦shared-2⟧\n      serviceAccounts",
        &["there is no pool `shared-2`"],
    );
    assert_eq!(help(&errors), "did you mean `shared-1`?");
    let errors = case(
        "tier: standard\n      pool: shared-1",
        "tier: ⟦standard⟧",
        &["a tenant of the tier `standard` shares a cluster, but the tenant names no pool"],
    );
    assert_eq!((errors[0].path.as_str(), help(&errors)), ("spec.tenants[1].pool", "add `pool: shared-1`"));
    let to = "tier: premium\n      pool: ⟦shared-1⟧";
    case(
        "tier: premium",
        to,
        &["a tenant of the tier `premium` is a silo: it shares no cluster, so it can't have a pool"],
    );
}

#[test]
fn service_accounts_are_checked() {
    let with = |text: &str| edited("serviceAccounts: []", &format!("serviceAccounts: {text}"));
    let policy = "\"arn:aws:iam::123456789012:policy/p\"";
    loaded(&with(&format!("[{{name: up, policies: [{policy}]}}]")));
    expect(
        &with(&format!("[{{name: ⟦Up⟧, policies: [{policy}]}}]")),
        &["`Up` is not a valid name for a service account with an IAM role"],
    );
    expect(
        &with(&format!("[{{name: ⟦default⟧, policies: [{policy}]}}]")),
        &["`default` is not a valid name for a service account with an IAM role"],
    );
    expect(
        &with(&format!("[{{name: up, policies: [{policy}]}}, {{name: ⟦up⟧, policies: [{policy}]}}]")),
        &["`up` is given twice"],
    );
    expect(
        &with(&format!("[{{name: up, policies: [{policy}, ⟦{policy}⟧]}}]")),
        &["`arn:aws:iam::123456789012:policy/p` is given twice"],
    );
    expect(&with("[{name: up, policies: ⟦[]⟧}]"), &["the value is empty"]);
    expect(&with("[{name: up, policies: [⟦ReadOnlyAccess⟧]}]"), &["this is not an ARN"]);
    expect(
        &with("[{name: up, policies: [⟦\"arn:aws:iam::123456789012:role/x\"⟧]}]"),
        &["this is not the ARN of a managed policy"],
    );
    expect(
        &with("[{name: up, policies: [⟦\"arn:aws:iam::999999999999:policy/x\"⟧]}]"),
        &["the policy is in account 999999999999, but the tenancy is in account 123456789012"],
    );
    expect(
        &with("[{name: up, policies: [⟦\"arn:aws:iam::aws:policy/AdministratorAccess\"⟧]}]"),
        &["the policy `AdministratorAccess` gives access to every tenant's resources"],
    );
}

#[test]
fn principals_are_roles_or_users_of_the_partition() {
    let admin = |arn: &str, message: &str| case("admins: []", &format!("admins: [⟦\"{arn}\"⟧]"), &[message]);
    admin("PlatformAdmin", "this is not an ARN");
    admin("arn:aws:iam::1234:role/x", "`1234` is not an account id: an account id has 12 digits");
    admin(
        "arn:aws-cn:iam::123456789012:role/x",
        "the ARN is of the partition `aws-cn`, but us-east-1 is in the partition `aws`",
    );
    admin("arn:aws:iam::123456789012:root", "the account's root user can't have access to a cluster");
    admin("arn:aws:iam::123456789012:group/x", "an IAM group can't have access to a cluster");
    admin(
        "arn:aws:iam::123456789012:role/aws-service-role/emr-containers.amazonaws.com/AWSServiceRoleForAmazonEMRContainers",
        "a service-linked role can't have access to a cluster: only an AWS service can assume it",
    );
    admin("arn:aws:iam::123456789012:role/*", "the ARN holds a space or a wildcard, so it doesn't name one resource");
    admin("arn:aws:sts::123456789012:assumed-role/x", "the ARN of the session has no role name or no session name");
    admin("arn:aws:s3:::bucket", "this is not an ARN of IAM");
    let role = "\"arn:aws:iam::123456789012:role/Admin\"";
    let session = "\"arn:aws:sts::123456789012:assumed-role/Admin/me\"";
    case(
        "admins: []",
        &format!("admins: [{role}, ⟦{session}⟧]"),
        &["`arn:aws:iam::123456789012:role/Admin` is given twice"],
    );
}

/// `BASE` with these lists of identities for the tenants 23456 and 34567.
fn with_access(second: &str, third: &str) -> String {
    let third = format!("tier: serverless\n      pool: shared-1\n      access: {third}");
    let text = edited("serviceAccounts: []", &format!("access: {second}"));
    text.replace("tier: serverless\n      pool: shared-1", &third)
}

const CLAIM: &str = "{issuer: https://login.example.com, claim: groups, value: dev}";
const ROLE: &str = "{role: \"arn:aws:iam::111122223333:role/ci/Deploy\"}";
const CERTIFICATE: &str = "{certificate: spiffe://globex.example/ci}";

#[test]
fn identities_of_tenants() {
    let text = with_access(&format!("[{ROLE}, {CERTIFICATE}, {CLAIM}]"), "[]");
    let spec = loaded(
        &text.replace("  tags: {}", "  gateway: {url: https://g.example, role: \"arn:aws:iam::123456789012:role/g\"}"),
    );
    assert!(spec.warnings.is_empty(), "{:?}", spec.warnings);
    assert_eq!(
        spec.tenant("23456").unwrap().access,
        [
            TenantAccess::Claim {
                issuer: "https://login.example.com".to_owned(),
                claim: "groups".to_owned(),
                value: "dev".to_owned()
            },
            TenantAccess::Role { arn: "arn:aws:iam::111122223333:role/ci/Deploy".to_owned() },
            TenantAccess::Certificate { uri: "spiffe://globex.example/ci".to_owned() },
        ]
    );
    assert!(spec.tenant("34567").unwrap().access.is_empty());
    loaded(&with_access("[{role: \"arn:aws:iam::123456789012:user/anna\"}]", "[]"));
}

#[test]
fn an_identity_is_exactly_one_thing() {
    let wrong = |items: &str, messages: &[&str]| expect(&with_access(items, "[]"), messages);
    let errors = wrong("[⟦{}⟧]", &["the entry names no identity"]);
    assert_eq!((errors[0].code, errors[0].path.as_str()), (Code::MissingField, "spec.tenants[1].access[0]"));
    wrong("[{⟦rolle⟧: x}]", &["there is no field `rolle`"]);
    wrong("[⟦deployer⟧]", &["the value must be a mapping, but it is the text `deployer`"]);
    let role = "role: \"arn:aws:iam::111122223333:role/x\"";
    let errors = wrong(
        &format!("[{{issuer: \"https://a.example\", ⟦role⟧: {}}}]", &role[6..]),
        &["the entry has both `issuer` and `role`"],
    );
    assert_eq!(help(&errors), "write each identity as an entry of its own");
    wrong(&format!("[{{{role}, ⟦certificate⟧: \"spiffe://a/b\"}}]"), &["the entry has both `role` and `certificate`"]);
    wrong(&format!("[{{{role}, ⟦claim⟧: x}}]"), &["the entry has both `role` and `claim`"]);
    let errors = wrong("[{⟦issuer⟧: \"https://a.example\", value: x}]", &["`claim` is missing"]);
    assert_eq!(help(&errors), "a claim of a token needs `issuer`, `claim` and `value`");
    wrong("[{⟦claim⟧: groups, value: x}]", &["`issuer` is missing"]);
    wrong("[{issuer: \"https://a.example\", claim: ⟦\"\"⟧, value: x}]", &["the value is empty"]);
    wrong("[{issuer: \"https://a.example\", claim: groups, value: ⟦\"\"⟧}]", &["the value is empty"]);
    wrong(
        "[{issuer: \"https://a.example\", claim: groups, value: ⟦7⟧}]",
        &["the value must be text, but it is the number 7"],
    );
}

#[test]
fn an_identity_has_one_form() {
    let wrong = |item: &str, messages: &[&str]| expect(&with_access(&format!("[{item}]"), "[]"), messages);
    let issuer = |url: &str, why: &str| {
        let message = format!("`{url}` is not an issuer: {why}");
        wrong(&format!("{{issuer: ⟦\"{url}\"⟧, claim: groups, value: x}}"), &[&message])
    };
    let errors = issuer("http://a.example", "it doesn't begin with `https://`");
    assert_eq!(errors[0].path, "spec.tenants[1].access[0].issuer");
    issuer("https://a.example?b", "it has a query or a fragment");
    issuer("https://u@a.example", "it has a user name");
    issuer("https://", "it has no valid host");
    let role = |arn: &str, message: &str| wrong(&format!("{{role: ⟦\"{arn}\"⟧}}"), &[message]);
    role("Deploy", "this is not an ARN");
    role("arn:aws:iam::111122223333:role/*", "the ARN holds a space or a wildcard, so it doesn't name one resource");
    role(
        "arn:aws-cn:iam::111122223333:role/x",
        "the ARN is of the partition `aws-cn`, but us-east-1 is in the partition `aws`",
    );
    let session = "this is the ARN of one session, but all sessions of the role would count";
    let errors = role("arn:aws:sts::111122223333:assumed-role/Deploy/me", session);
    assert_eq!(
        help(&errors),
        "write the role's own ARN, with its path, such as `arn:aws:iam::111122223333:role/Deploy`"
    );
    let certificate = |uri: &str, why: &str| {
        wrong(&format!("{{certificate: ⟦\"{uri}\"⟧}}"), &[&format!("`{uri}` is not a URI: {why}")])
    };
    certificate("globex", "it has no scheme");
    certificate("spiffe://globex.example/*", "it has a wildcard, but it is compared exactly");
}

#[test]
fn an_identity_belongs_to_one_tenant() {
    let two = "tenant `23456` has this identity already, so it would be a member of two tenants";
    for (first, second) in [
        (CLAIM, "{issuer: https://login.example.com, claim: groups, value: ⟦dev⟧}"),
        (CERTIFICATE, "{certificate: ⟦spiffe://globex.example/ci⟧}"),
        // An account has no two roles of one name, and the ARN of a session has no path.
        (ROLE, "{role: ⟦\"arn:aws:iam::111122223333:role/deploy\"⟧}"),
    ] {
        let errors = expect(&with_access(&format!("[{first}]"), &format!("[{second}]")), &[two]);
        assert_eq!((errors[0].code, errors[0].path.as_str()), (Code::Duplicate, "spec.tenants[2].access[0]"));
        let related = errors[0].related.as_ref().unwrap();
        assert_eq!((related.at.line, related.label.as_str()), (34, "the identity of tenant `23456`"));
    }
    expect(
        &with_access(&format!("[{CERTIFICATE}, {{certificate: ⟦spiffe://globex.example/ci⟧}}]"), "[]"),
        &["this identity is given twice"],
    );
    let others = "[{issuer: https://login.example.com, claim: groups, value: Dev}, \
                  {issuer: https://login.example.com/, claim: groups, value: dev}, \
                  {issuer: https://login.example.com, claim: roles, value: dev}, \
                  {role: \"arn:aws:iam::999999999999:role/Deploy\"}, {role: \"arn:aws:iam::111122223333:user/Deploy\"}]";
    loaded(&with_access(&format!("[{CLAIM}, {ROLE}]"), others));
}

#[test]
fn an_identity_of_the_platform_belongs_to_no_tenant() {
    let item = "[{role: ⟦\"arn:aws:iam::111122223333:role/ci/Deploy\"⟧}]";
    for (key, list) in [
        ("admins", "[\"arn:aws:sts::111122223333:assumed-role/Deploy/me\"]"),
        ("operators", "[\"arn:aws:iam::111122223333:role/ci/Deploy\"]"),
    ] {
        let text = with_access(item, "[]").replace(&format!("{key}: []"), &format!("{key}: {list}"));
        let message = format!("this principal is also in `spec.access.{key}`, so it isn't confined to tenant `23456`");
        let errors = expect(&text, &[&message]);
        assert_eq!(errors[0].related.as_ref().unwrap().label, format!("the entry of `spec.access.{key}`"));
    }
}

#[test]
fn the_gateway_has_a_url_and_a_role_of_its_own() {
    let with = |gateway: &str| edited("  tags: {}", &format!("  gateway: {gateway}"));
    let wrong = |gateway: &str, message: &str| expect(&with(gateway), &[message]);
    assert_eq!(loaded(BASE).gateway, None);
    let role = "arn:aws:iam::123456789012:role/platform/acme-gateway";
    let url = "https://gateway.acme.example:8443/k8s".to_owned();
    let spec = loaded(&with(&format!("{{url: \"{url}\", role: \"{role}\"}}")));
    assert_eq!(spec.gateway, Some(Gateway { url: url.clone(), role: Some(role.to_owned()) }));
    assert_eq!(loaded(&with(&format!("{{url: \"{url}\"}}"))).gateway, Some(Gateway { url, role: None }));
    for (url, why) in [
        ("gateway.acme.example", "it doesn't begin with `https://`"),
        ("http://gateway.acme.example", "it doesn't begin with `https://`"),
        ("https://", "it has no valid host"),
        ("https://gateway.acme.example/", "it ends with a slash"),
        ("https://gateway.acme.example?a=b", "it has a query or a fragment"),
        ("https://gateway.acme.example#a", "it has a query or a fragment"),
        ("https://me@gateway.acme.example", "it has a user name"),
    ] {
        let message = format!("`{url}` can't be the gateway's URL: {why}");
        let errors = wrong(&format!("{{url: ⟦\"{url}\"⟧}}"), &message);
        assert_eq!((errors[0].code, errors[0].path.as_str()), (Code::BadValue, "spec.gateway.url"));
    }
    let role = |arn: &str, message: &str| wrong(&format!("{{url: \"https://g.example\", role: ⟦\"{arn}\"⟧}}"), message);
    role("acme-gateway", "this is not an ARN");
    let only = "the gateway needs a role, but this is the ARN of a user or of a session";
    role("arn:aws:iam::123456789012:user/gateway", only);
    role("arn:aws:sts::123456789012:assumed-role/gateway/me", only);
    expect(&edited("  tags: {}", "  ⟦gateway⟧: {role: \"arn:aws:iam::123456789012:role/g\"}"), &["`url` is missing"]);
}

#[test]
fn the_gateway_is_nobody_else() {
    let role = "\"arn:aws:iam::123456789012:role/acme-gateway\"";
    let gateway = format!("  gateway: {{url: \"https://g.example\", role: ⟦{role}⟧}}");
    for key in ["admins", "operators"] {
        let other = "[\"arn:aws:sts::123456789012:assumed-role/Acme-Gateway/me\"]";
        let text = edited("  tags: {}", &gateway).replace(&format!("{key}: []"), &format!("{key}: {other}"));
        let message = format!("this role is also in `spec.access.{key}`, so the gateway would be an administrator");
        assert_eq!(expect(&text, &[&message])[0].code, Code::Duplicate);
    }
    let item = format!("[{{role: ⟦{role}⟧}}]");
    let text = with_access(&item, "[]").replace("  tags: {}", &gateway.replace(['⟦', '⟧'], ""));
    expect(&text, &["this principal is also in `spec.gateway.role`, so it isn't confined to tenant `23456`"]);
}

const POOL_GATEWAY: &str = "    - name: shared-1\n      gateway: GATEWAY\n";
const IMAGE: &str = "\"123456789012.dkr.ecr.us-east-1.amazonaws.com/acme/shared/ringfence@sha256:\
                     0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"";

#[test]
fn a_gateway_inside_of_a_pools_cluster() {
    let with = |gateway: &str| {
        let text = edited("    - name: shared-1\n", &POOL_GATEWAY.replace("GATEWAY", gateway));
        text.replace("  tags: {}", "  gateway: {url: https://g.example}")
    };
    let spec = loaded(&with(&format!("{{image: {IMAGE}}}")));
    let pods = spec.pools[0].gateway.as_ref().unwrap();
    assert_eq!(repository(&pods.image), "123456789012.dkr.ecr.us-east-1.amazonaws.com/acme/shared/ringfence");
    assert_eq!((pods.replicas, pods.load_balancer), (2, true));
    assert_eq!((pods.config_map.as_str(), pods.certificate_secret.as_str()), ("gateway", "gateway-tls"));
    let tagged = GatewayPods { image: "r.example:5000/a/b:1.2@sha256:0".to_owned(), ..pods.clone() };
    assert_eq!(repository(&tagged.image), "r.example:5000/a/b");
    assert!(loaded(BASE).pools[0].gateway.is_none());
    for image in [
        "ringfence",
        "registry.example.com/ringfence:1.0",
        "registry.example.com/ringfence@sha256:0123",
        "ringfence@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    ] {
        let errors = expect(
            &with(&format!("{{image: ⟦\"{image}\"⟧}}")),
            &[&format!("{} is not an image with a digest", quote(image))],
        );
        assert_eq!(errors[0].path, "spec.pools[0].gateway.image");
    }
    expect(&with(&format!("{{image: {IMAGE}, replicas: ⟦1⟧}}")), &["1 is out of range"]);
    expect(&with(&format!("{{image: {IMAGE}, configMap: ⟦Gateway⟧}}")), &["`Gateway` is not a valid name"]);
    let text = with(&format!("{{image: {IMAGE}}}")).replace("  gateway: {url: https://g.example}", "  tags: {}");
    let errors = expect(
        &text.replace("      gateway: {image", "      ⟦gateway⟧: {image"),
        &["the pool has a gateway, but the tenancy has none"],
    );
    assert_eq!(help(&errors), "add `spec.gateway` with the gateway's `url`");
}

/// Without a gateway, nobody reads the identities.
#[test]
fn identities_without_a_gateway_are_a_warning() {
    let spec = loaded(&with_access(&format!("[{CLAIM}]"), "[]"));
    let warnings: Vec<_> = spec.warnings.iter().map(|w| (w.path.as_str(), w.message.as_str())).collect();
    let message = "no gateway reaches the tenant's cluster, so these identities get no access";
    assert_eq!(warnings, [("spec.tenants[1].access", message)]);
    let inside = POOL_GATEWAY.replace("GATEWAY", &format!("{{image: {IMAGE}}}"));
    let text = with_access(&format!("[{CLAIM}]"), "[]").replace("    - name: shared-1\n", &inside);
    let spec = loaded(&text.replace("  tags: {}", "  gateway: {url: https://g.example}"));
    assert!(spec.warnings.is_empty(), "{:?}", spec.warnings);
}

#[test]
fn region_account_and_tags() {
    let errors = case("us-east-1", "⟦us_east_1⟧", &["`us_east_1` is not a region"]);
    assert_eq!(help(&errors), "did you mean `us-east-1`?");
    let errors = case("us-east-1", "⟦us-est-1⟧", &["this version of ringfence doesn't know the region `us-est-1`"]);
    assert_eq!(help(&errors), "did you mean `us-east-1`?");
    case("\"123456789012\"", "⟦\"12345678901\"⟧", &["`12345678901` is not an account id"]);
    let tags = |tags: &str, messages: &[&str]| case("tags: {}", &format!("tags: {tags}"), messages);
    tags("{⟦aws:x⟧: a}", &["tag keys that begin with `aws:` are reserved"]);
    tags("{⟦ringfence.dev/x⟧: a}", &["tag keys that begin with `ringfence.dev/` are reserved"]);
    tags("{⟦Name⟧: a}", &["ringfence writes the tag `Name` itself"]);
    tags("{a: b, ⟦A⟧: c}", &["`A` is given twice"]);
    tags("{a: ⟦\"b;c\"⟧}", &["`b;c` is not a valid tag value"]);
    tags(&format!("{{⟦{}⟧: a}}", "k".repeat(129)), &["the tag key has 129 characters"]);
    let long = edited("tags: {}", &format!("tags: {{a: {}}}", "v".repeat(257)));
    assert_eq!(try_load(&long).unwrap_err().0[0].message, "the tag value has 257 characters");
    let many: Vec<String> = (0..41).map(|i| format!("k{i}: v")).collect();
    let many = edited("tags: {}", &format!("tags: {{{}}}", many.join(", ")));
    assert_eq!(try_load(&many).unwrap_err().0[0].message, "the value has 41 entries");
    // Otherwise each plan would write them, and none would see them (terraform-provider-aws#18068).
    for prefix in ["karpenter.sh/", "k8s.io/cluster-autoscaler/", "elbv2.k8s.aws/"] {
        let message = format!(
            "tag keys that begin with `{prefix}` belong to in-cluster controllers, which find resources by them"
        );
        tags(&format!("{{⟦{prefix}x⟧: a}}"), &[&message]);
    }
    tags("{⟦awsApplication⟧: a}", &["the tag key `awsApplication` belongs to AWS myApplications"]);
    case("  tags: {}", "  iam: {path: ⟦platform⟧}", &["`platform` is not an IAM path"]);
    case("  tags: {}", "  iam: {permissionsBoundary: ⟦x⟧}", &["this is not an ARN"]);
}

#[test]
fn each_tenants_images_are_its_own() {
    let images = |spec: &Spec| (spec.images.of("12345"), spec.images.shared.clone());
    assert_eq!(images(&loaded(BASE)), ("acme/12345".to_owned(), "acme/shared".to_owned()));
    let moved = edited("  tags: {}", "  images: {tenants: saas/images, shared: base}");
    assert_eq!(images(&loaded(&moved)), ("saas/images/12345".to_owned(), "base".to_owned()));
    for wrong in ["Acme", "acme/", "/acme", "a//b", "a b", "a*", "a._b", ""] {
        let message = format!("`{wrong}` is not a valid prefix for names of repositories");
        case("  tags: {}", &format!("  images: {{tenants: ⟦\"{wrong}\"⟧}}"), &[&message]);
    }
    for shared in ["acme", "saas"] {
        let message =
            format!("all tenants may pull images below `{shared}`, and that includes every tenant's own images");
        let tenants = if shared == "acme" { "" } else { ", tenants: saas/images" };
        let errors = case("  tags: {}", &format!("  images: {{shared: ⟦{shared}⟧{tenants}}}"), &[&message]);
        assert_eq!(errors[0].path, "spec.images.shared");
    }
    let message = "the repositories of `shared` overlap the shared ones, `acme/shared`, which all tenants may pull";
    let errors = case("id: \"12345\"", "id: ⟦shared⟧", &[message]);
    assert_eq!(errors[0].path, "spec.tenants[0].id");
    loaded(&edited("id: \"12345\"", "id: shared").replace("  tags: {}", "  images: {shared: base}"));
}

/// EKS User Guide, "Simplify compute management with AWS Fargate".
#[test]
fn there_is_no_fargate_in_govcloud() {
    let there = |region: &str| edited("region: us-east-1", &format!("region: {region}"));
    for region in ["us-gov-west-1", "us-gov-east-1"] {
        let message = format!("EKS offers no Fargate in {region}");
        let errors = expect(&there(region).replace("tier: serverless", "tier: ⟦serverless⟧"), &[&message]);
        assert_eq!((errors[0].code, errors[0].path.as_str()), (Code::Forbidden, "spec.tenants[2].tier"));
        loaded(&there(region).replace("tier: serverless", "tier: standard"));
    }
    for region in ["cn-north-1", "eu-central-1"] {
        loaded(&there(region));
    }
}

#[test]
fn ignored_tags_and_networks_are_checked() {
    let ignore = |list: &str, messages: &[&str]| case("  tags: {}", &format!("  ignoreTags: {list}"), messages);
    ignore(
        "{keys: [⟦ringfence.dev/tenant⟧]}",
        &["ringfence can't ignore `ringfence.dev/tenant`: this covers `ringfence.dev/tenant`, which it writes itself"],
    );
    ignore(
        "{keyPrefixes: [⟦ringfence.⟧]}",
        &["ringfence can't ignore `ringfence.`: this covers `ringfence.dev/address`, which it writes itself"],
    );
    ignore(
        "{keyPrefixes: [⟦kubernetes.io/⟧]}",
        &["ringfence can't ignore `kubernetes.io/`: this covers `kubernetes.io/role/elb`, which it writes itself"],
    );
    ignore("{keys: [⟦Name⟧]}", &["ringfence can't ignore `Name`: this covers `Name`, which it writes itself"]);
    ignore("{keys: [⟦\"\"⟧]}", &["the tag key has 0 characters"]);
    case(
        "  tags: {}",
        "  tags: {team: a}\n  ignoreTags: {keyPrefixes: [⟦te⟧]}",
        &["ringfence can't ignore `te`: this covers `team`, which it writes itself"],
    );
    let spec = loaded(&edited("  tags: {}", "  ignoreTags: {keys: [map-migrated], keyPrefixes: [AutoTag_]}"));
    assert_eq!((spec.ignore_tags.keys.len(), spec.ignore_tags.key_prefixes.len()), (1, 1));

    let network = |list: &str, messages: &[&str]| {
        case("    flowLogs: true", &format!("    flowLogs: true\n    ignore: {list}"), messages)
    };
    network("{routes: [⟦0.0.0.0/0⟧]}", &["ringfence can't ignore the default route: it writes it itself"]);
    network("{routes: [⟦pl-x⟧]}", &["`pl-x` is not an address block"]);
    network(
        "{cidrBlocks: [⟦10.65.0.0/16⟧]}",
        &["10.65.0.0/16 overlaps the supernet: ringfence allocates blocks from it itself"],
    );
    loaded(&edited(
        "    flowLogs: true",
        "    flowLogs: true\n    ignore: {cidrBlocks: [100.64.0.0/16], routes: [10.0.0.0/8, pl-0123abcd]}",
    ));

    let sources = |list: &str, messages: &[&str]| {
        case("    admins: []", &format!("    admins: []\n    privateSources: {list}"), messages)
    };
    sources("[⟦0.0.0.0/0⟧]", &["0.0.0.0/0 lets almost every connected network reach the API servers"]);
    sources("[⟦sg-x⟧]", &["`sg-x` is not the id of a prefix list or a security group"]);
    sources("[10.0.0.0/16, ⟦10.0.0.0/16⟧]", &["`10.0.0.0/16` is given twice"]);
    sources("[⟦10.0.0.1/16⟧]", &["`10.0.0.1/16` has bits set beyond its prefix"]);
    let spec = loaded(&edited(
        "    admins: []",
        "    admins: []\n    privateSources: [sg-0123abcd, pl-0123abcd, 10.0.0.0/16]",
    ));
    assert_eq!(spec.access.private_sources, ["10.0.0.0/16", "pl-0123abcd", "sg-0123abcd"]);
    assert!(spec.warnings.is_empty(), "{:?}", spec.warnings);
    let spec = loaded(&edited("    admins: []", "    admins: []\n    privateSources: [10.0.0.0/8]"));
    assert!(spec.warnings[0].message.contains("overlaps the tenancy's own supernet"), "{:?}", spec.warnings);
}

/// The webhook runs in the cluster, so its image must be known, by digest.
#[test]
fn the_webhook_needs_an_image() {
    let load = |images: &str| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("own.yaml"), "extends: premium\npolicyEngine: webhook\n").unwrap();
        let options = LoadOptions { profiles_dir: Some(dir.path().to_owned()), today: TODAY };
        let text = BASE.replace("premium", "own").replace("  tags: {}", images);
        load(Path::new("tenancy.yaml"), &text, &options)
    };
    let spec = load(&format!("  images: {{ringfence: {IMAGE}}}")).unwrap();
    assert!(spec.images.ringfence.unwrap().contains("/ringfence@sha256:"));
    let errors = load("  tags: {}").unwrap_err().0;
    assert_eq!(errors[0].code, Code::MissingField, "{}", errors[0]);
    assert!(errors[0].to_string().contains("spec.images.ringfence"), "{}", errors[0]);
    for image in ["ringfence", "registry.example/ringfence:1.0"] {
        let errors = load(&format!("  images: {{ringfence: {image}}}")).unwrap_err().0;
        assert_eq!((errors[0].code, errors[0].path.as_str()), (Code::BadValue, "spec.images.ringfence"));
    }
}

/// A policy engine that no cluster of EKS has is refused, not ignored.
#[test]
fn pod_security_policies_are_refused() {
    let load = |engine: &str| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("own.yaml"), format!("extends: premium\npolicyEngine: {engine}\n")).unwrap();
        let options = LoadOptions { profiles_dir: Some(dir.path().to_owned()), today: TODAY };
        load(Path::new("tenancy.yaml"), &BASE.replace("premium", "own"), &options)
    };
    let errors = load("psp").unwrap_err().0;
    assert_eq!((errors[0].code, errors[0].path.as_str()), (Code::UnsupportedVersion, "policyEngine"));
    assert!(errors[0].to_string().contains("render --policy-engine psp"), "{}", errors[0]);
    for engine in ["native", "gatekeeper", "opa"] {
        load(engine).unwrap();
    }
}

// ---------------------------------------------------------------------------------------
// Network, access and versions
// ---------------------------------------------------------------------------------------

#[test]
fn supernets_fit_and_overlap_nothing() {
    let supernet = |text: &str, messages: &[&str]| case("10.64.0.0/12", text, messages);
    let errors = supernet("⟦10.65.0.0/12⟧", &["`10.65.0.0/12` has bits set beyond its prefix"]);
    assert_eq!((errors[0].code, help(&errors)), (Code::Network, "write 10.64.0.0/12"));
    supernet("⟦10.64.0.0⟧", &["`10.64.0.0` has no prefix length"]);
    supernet("⟦ten/12⟧", &["`ten/12` is not an address block"]);
    supernet("⟦\"fd00::/8\"⟧", &["`fd00::/8` is not an IPv4 block"]);
    supernet("⟦11.0.0.0/12⟧", &["11.0.0.0/12 is not a block of private addresses"]);
    supernet(
        "⟦172.16.0.0/14⟧",
        &["172.16.0.0/14 overlaps 172.17.0.0/16, the default network of Docker on many machines"],
    );
    supernet("⟦172.20.0.0/14⟧", &["172.20.0.0/14 overlaps 172.20.0.0/16, the addresses of Kubernetes services"]);
}

#[test]
fn the_supernet_has_room_for_every_vpc() {
    let errors =
        case("10.64.0.0/12", "⟦10.64.0.0/16⟧", &["10.64.0.0/16 has room for 1 VPCs of /16, but the tenancy has 2"]);
    assert_eq!(help(&errors), "choose a supernet of /15 or larger, or a larger `vpcPrefix`, which makes VPCs smaller");
    let text = edited("10.64.0.0/12\n    vpcPrefix: 16", "10.64.0.0/20\n    vpcPrefix: ⟦16⟧");
    expect(&text, &["a VPC of /16 doesn't fit into 10.64.0.0/20"]);
    case(
        "vpcPrefix: 16",
        "vpcPrefix: ⟦26⟧",
        &["a /26 is too small for a public and a private subnet in each of 3 zones"],
    );
    loaded(&edited("vpcPrefix: 16", "vpcPrefix: 25"));
    loaded(&edited("10.64.0.0/12", "100.64.0.0/10"));
}

#[test]
fn service_addresses_are_private_and_apart() {
    let with = |cidr: &str| edited("    vpcPrefix", &format!("    serviceCidr: {cidr}\n    vpcPrefix"));
    loaded(&with("10.100.0.0/16"));
    expect(&with("⟦100.64.0.0/16⟧"), &["EKS doesn't accept 100.64.0.0/16 for the addresses of services"]);
    expect(&with("⟦10.100.0.0/25⟧"), &["EKS doesn't accept 10.100.0.0/25 for the addresses of services"]);
    let text = with("10.70.0.0/16").replace("10.64.0.0/12", "⟦10.64.0.0/12⟧");
    expect(&text, &["10.64.0.0/12 overlaps 10.70.0.0/16, the addresses of Kubernetes services"]);
}

#[test]
fn without_nat_endpoints_are_required() {
    let text =
        edited("natGateways: per-zone\n    endpoints: [s3]", "natGateways: ⟦none⟧\n    endpoints: [s3, sts, ec2, eks]");
    let errors = expect(
        &text,
        &["without NAT gateways, nodes need VPC endpoints for `ecr.api`, `ecr.dkr`, `eks-auth` and `logs`"],
    );
    assert_eq!((errors[0].code, errors[0].path.as_str()), (Code::Network, "spec.network.natGateways"));
    let text = silo("{network: {natGateways: ⟦none⟧}}", "[]");
    let errors = expect(
        &text,
        &[
            "without NAT gateways, nodes need VPC endpoints for `ec2`, `ecr.api`, `ecr.dkr`, `eks`, `eks-auth`, `logs` and `sts`",
        ],
    );
    assert_eq!(errors[0].path, "spec.tenants[0].overrides.network.natGateways");
}

#[test]
fn endpoints_are_private_or_restricted() {
    case(
        "endpoint: private",
        "endpoint: ⟦restricted⟧",
        &["without `allowedCidrs`, EKS opens the public endpoints to the whole internet"],
    );
    case(
        "allowedCidrs: []",
        "allowedCidrs: [⟦203.0.113.0/24⟧]",
        &["`allowedCidrs` has no effect on private endpoints"],
    );
    let restricted = |cidr: &str| {
        edited("endpoint: private\n    allowedCidrs: []", &format!("endpoint: restricted\n    allowedCidrs: [{cidr}]"))
    };
    expect(
        &restricted("⟦10.0.0.0/8⟧"),
        &["10.0.0.0/8 is not a block of public addresses, but the public endpoint is reached over the internet"],
    );
    expect(&restricted("203.0.113.0/24, ⟦203.0.113.0/24⟧"), &["`203.0.113.0/24` is given twice"]);
    let open = "0.0.0.0/0 opens the API servers to a large part of the internet (API-1, no direct tenant access to the Kubernetes and EKS APIs)";
    let errors = expect(&restricted("⟦0.0.0.0/0⟧"), &[open]);
    assert_eq!(
        help(&errors),
        "name only your own networks, or add a waiver for API-1 to pool `shared-1`, tenant `12345`"
    );
    let waiver = "[{control: API-1, reason: demo, until: 2027-01-01}]";
    let text = restricted("0.0.0.0/0")
        .replace("waivers: []", &format!("waivers: {waiver}"))
        .replace("- name: shared-1", &format!("- name: shared-1\n      waivers: {waiver}"));
    assert!(loaded(&text).warnings.is_empty());
}

#[test]
fn kubernetes_versions_are_supported() {
    let version = |text: &str, message: &str| case("\"1.36\"", &format!("⟦\"{text}\"⟧"), &[message]);
    let errors = version("1.31", "EKS ends its support of Kubernetes 1.31 on 2026-11-26, in less than 8 days");
    assert_eq!(errors[0].code, Code::UnsupportedVersion);
    assert_eq!(help(&errors), "choose one of `1.32`, `1.33`, `1.34`, `1.35`, `1.36` and `1.37`");
    version("1.24", "EKS no longer offers Kubernetes 1.24");
    version("1.63", "this version of ringfence doesn't know Kubernetes 1.63 on EKS");
    version("latest", "`latest` is not a Kubernetes version");
    version("1.36.1", "`1.36.1` is not a Kubernetes version");
    for good in ["1.35", "1.36", "1.37"] {
        assert!(loaded(&edited("\"1.36\"", &format!("{good:?}"))).warnings.is_empty(), "{good}");
    }
    for (version, verb) in
        [("1.32", "ended on 2026-03-23"), ("1.33", "ended on 2026-07-29"), ("1.34", "ends on 2026-12-02")]
    {
        let warnings = loaded(&edited("\"1.36\"", &format!("{version:?}"))).warnings;
        let message =
            format!("standard support of Kubernetes {version} {verb}: after that, EKS upgrades the cluster by itself");
        assert_eq!(warnings.iter().map(|w| w.message.as_str()).collect::<Vec<_>>(), [message]);
    }
    let text = edited("    - name: shared-1", "    - name: shared-1\n      kubernetesVersion: ⟦\"1.31\"⟧");
    expect(&text, &["EKS ends its support of Kubernetes 1.31 on 2026-11-26, in less than 8 days"]);
    let late = LoadOptions { profiles_dir: None, today: date(2027, 1, 1) };
    let errors = load(Path::new("t"), &edited("\"1.36\"", "\"1.31\""), &late).unwrap_err().0;
    assert_eq!(errors[0].message, "EKS ended its support of Kubernetes 1.31 on 2026-11-26");
}

// ---------------------------------------------------------------------------------------
// Overrides, controls and waivers
// ---------------------------------------------------------------------------------------

#[test]
fn tenants_that_override_nothing_share_their_profile() {
    let more = "      pool: shared-1\n    - {id: \"45678\", name: hooli, tier: serverless, pool: shared-1}\n";
    let spec = loaded(&format!("{}{more}", BASE.strip_suffix("      pool: shared-1\n").unwrap()));
    let profile = |id: &str| &spec.tenant(id).unwrap().profile;
    assert!(Arc::ptr_eq(profile("34567"), profile("45678")));
    assert!(!Arc::ptr_eq(profile("34567"), profile("23456")));
}

#[test]
fn overrides_change_what_the_tier_leaves_open() {
    let errors =
        expect(&silo("{⟦policyEngine⟧: opa}", "[]"), &["the tier `premium` doesn't allow overrides of `policyEngine`"]);
    assert_eq!(
        (errors[0].code, errors[0].path.as_str()),
        (Code::NotOverridable, "spec.tenants[0].overrides.policyEngine")
    );
    assert!(help(&errors).starts_with("the tier allows overrides of `nodes`, "));
    expect(&pooled("{⟦cluster⟧: {logRetentionDays: 30}}"), &["`cluster` has no effect on a tenant in a pool"]);
    expect(
        &pooled("{exposure: {⟦nodePorts⟧: true}}"),
        &["the tier `standard` doesn't allow overrides of `exposure.nodePorts`"],
    );
    expect(&silo("{imds: ⟦~⟧}", "[]"), &["the value must be a mapping, but it is nothing"]);
    let spec = loaded(&pooled("{nodes: {max: 9}, namespace: {quota: {count/jobs.batch: ~, pods: 70}}}"));
    let profile = &spec.tenant("23456").unwrap().profile;
    assert_eq!((profile.nodes.max, profile.nodes.min), (9, 1));
    assert_eq!(profile.namespace.quota["pods"].0, "70");
    assert!(!profile.namespace.quota.contains_key("count/jobs.batch"), "null removes");
}

#[test]
fn weakened_controls_need_a_waiver() {
    let weak = [
        ("NET-2", "imds: {hopLimit: ⟦2⟧}", "with a hop limit of 2, pods can read the node's credentials"),
        (
            "NET-2",
            "imds: {tokens: ⟦optional⟧}",
            "IMDSv1 needs no token: a pod that can be tricked into a request can read the node's credentials",
        ),
        ("HOST-1", "nodes: {amiFamily: ⟦al2023⟧}", "Amazon Linux 2023 doesn't confine containers with SELinux"),
        ("HOST-1", "systemNodes: {amiFamily: ⟦al2023⟧}", "Amazon Linux 2023 doesn't confine containers with SELinux"),
        (
            "HOST-1",
            "nodes: {releaseVersion: ⟦1.61.0-5ce1a8b6⟧}",
            "in Bottlerocket `1.61.0-5ce1a8b6`, the labels of a container image can run commands on the node",
        ),
        ("HOST-1", "nodes: {kernelLockdown: ⟦none⟧}", "without kernel lockdown, root on a node can change its kernel"),
        ("POD-4", "pods: {hostPaths: [⟦/var/log/audit⟧]}", "pods could read `/var/log/audit` of the node"),
        ("ADM-3", "pods: {allowedRegistries: [account-ecr, ⟦\"*\"⟧]}", "images from any registry could run"),
        ("ADM-3", "pods: {allowedRegistries: [⟦docker.io⟧]}", "anybody can publish in `docker.io`"),
        (
            "NET-1",
            "networkPolicyMode: ⟦standard⟧",
            "a new pod has no network restrictions until its policies are applied",
        ),
        (
            "NET-1",
            "addons: {vpc-cni: {version: ⟦v1.22.3-eksbuild.1⟧}}",
            "in version `v1.22.3-eksbuild.1` of the VPC CNI, network policies of one namespace can affect pods of another",
        ),
        ("QUOTA-1", "nodes: {podPidsLimit: ⟦~⟧}", "without a limit, one pod can use up all process IDs of a node"),
        ("QUOTA-1", "namespace: {quota: {pods: ⟦~⟧}}", "the quota sets no limit for `pods`"),
        ("QUOTA-1", "namespace: {quota: {count/secrets: ⟦~⟧}}", "the quota sets no limit for `count/secrets`"),
        ("QUOTA-1", "namespace: {limits: {max: {memory: ⟦~⟧}}}", "`limits.max` has no value for `memory`"),
        ("POD-2", "pods: {allowedCapabilities: [⟦SYS_PTRACE⟧]}", "the Pod Security Standards don't allow `SYS_PTRACE`"),
        ("POD-2", "pods: {allowedCapabilities: [⟦KILL⟧]}", "the tier doesn't allow `KILL`"),
        ("API-1", "pods: {automountToken: ⟦true⟧}", "every pod would get credentials for the Kubernetes API"),
    ];
    for (id, overrides, message) in weak {
        let control: Control = id.parse().unwrap();
        let overrides = format!("{{{overrides}}}");
        let errors = expect(&silo(&overrides, "[]"), &[&format!("{message} ({id}, {})", control.title())]);
        assert_eq!(errors[0].code, Code::WeakenedControl);
        let waiver =
            format!("or add `- {{control: {id}, reason: …, until: 2027-05-23}}` under `spec.tenants[0].waivers`");
        assert!(help(&errors).ends_with(&waiver), "{}", help(&errors));
        let excused = silo(&overrides, &format!("[{{control: {id}, reason: because, until: 2027-03-31}}]"));
        let spec = loaded(&unmarked(&excused).0);
        assert!(spec.warnings.is_empty(), "{id}: {:?}", spec.warnings);
        assert_eq!(spec.tenants[0].waivers[0].control, control);
    }
}

#[test]
fn some_things_no_waiver_allows() {
    let waivers = "[{control: POD-2, reason: x, until: 2027-01-01}, {control: POD-4, reason: x, until: 2027-01-01}]";
    for name in ["SYS_ADMIN", "NET_ADMIN", "ALL"] {
        let message = format!("no tenant may have `{name}`: with it, a container controls the node");
        let errors = expect(&silo(&format!("{{pods: {{allowedCapabilities: [⟦{name}⟧]}}}}"), waivers), &[&message]);
        assert_eq!((errors[0].code, help(&errors)), (Code::Forbidden, "remove it; no waiver can allow it"));
    }
    for path in ["/", "/var/run/docker.sock", "/proc", "/var", "/var/lib/kubelet/pods"] {
        let message = format!("`{path}` gives access to the node's credentials or to other pods' secrets");
        expect(&silo(&format!("{{pods: {{hostPaths: [⟦{path}⟧]}}}}"), waivers), &[&message]);
    }
    expect(
        &silo("{pods: {seccompProfiles: [⟦Unconfined⟧]}}", "[]"),
        &["without seccomp, a container can use all system calls"],
    );
    let errors =
        expect(&silo("{pods: {allowedCapabilities: [⟦CAP_CHOWN⟧]}}", "[]"), &["`CAP_CHOWN` is not a possible value"]);
    assert_eq!(help(&errors), "write it without `CAP_`: `CHOWN`");
}

#[test]
fn profiles_must_make_sense() {
    let wrong = [
        ("nodes: {min: ⟦9⟧}", "`min` is 9, but `max` is only 6"),
        ("nodes: {max: ⟦1⟧}", "`min` is 2, but `max` is only 1"),
        ("nodes: {desired: ⟦7⟧}", "`desired` is 7, which is not between `min` (2) and `max` (6)"),
        ("nodes: {instanceTypes: [⟦m7g.large⟧]}", "`m7g.large` has arm64 processors, but `architecture` is x86_64"),
        ("nodes: {architecture: ⟦arm64⟧}", "`m7i.xlarge` has x86_64 processors, but `architecture` is arm64"),
        ("nodes: {instanceTypes: [⟦large⟧]}", "`large` is not an instance type"),
        ("nodes: {instanceTypes: [⟦m7i.xlrge⟧]}", "`m7i.xlrge` is not an instance type: there is no size `xlrge`"),
        ("nodes: {instanceTypes: [m7i.large, ⟦m7i.large⟧]}", "`m7i.large` is given twice"),
        ("nodes: {amiFamily: ⟦custom⟧}", "the family `custom` needs the id of an image"),
        ("nodes: {amiFamily: custom, amiId: ⟦ami-1⟧}", "`ami-1` is not an image id"),
        ("nodes: {releaseVersion: ⟦1.66.0⟧}", "`1.66.0` is not a release of an image"),
        (
            "nodes: {amiFamily: custom, amiId: ami-12345678, releaseVersion: ⟦1.66.0-2d3f4b6c⟧}",
            "a custom image has no release version of AWS",
        ),
        ("nodes: {amiId: ⟦ami-12345678⟧}", "`amiId` is only for the family `custom`"),
        (
            "nodes: {amiFamily: custom, amiId: ami-12345678, fips: ⟦true⟧}",
            "EKS offers FIPS images only for Bottlerocket",
        ),
        ("nodes: {dataVolume: {sizeGiB: 10, iops: ⟦6000⟧}}", "a volume of 10 GiB can have at most 5000 IOPS"),
        ("nodes: {dataVolume: {throughput: ⟦1000⟧}}", "a throughput of 1000 MiB/s needs 4000 IOPS"),
        ("nodes: {rootVolume: ⟦{sizeGiB: 10}⟧}", "`type` is missing"),
        ("systemNodes: {min: 0, desired: ⟦0⟧}", "without system nodes, DNS and metrics can't run"),
        ("addons: {coredns: {version: ⟦\"1.12\"⟧}}", "`1.12` is not the version of an add-on"),
        ("addons: {⟦core-dns⟧: {}}", "there is no field `core-dns`"),
        ("namespace: {quota: {pods: ⟦many⟧}}", "`many` is not a Kubernetes quantity"),
        ("namespace: {limits: {default: {cpu: ⟦\"9\"⟧}}}", "`default` of cpu is 9, but `max` is only 3"),
        (
            "exposure: {loadBalancers: ⟦false⟧}",
            "the quota allows `services.loadbalancers`, but `exposure.loadBalancers` is false",
        ),
        ("pods: {allowedRegistries: [⟦\"https://x.example/y\"⟧]}", "`https://x.example/y` is not a registry"),
        ("pods: {allowedRegistries: ⟦[]⟧}", "the value is empty"),
        ("pods: {hostPaths: [⟦var/log⟧]}", "`var/log` is not an absolute path"),
        ("pods: {seccompProfiles: [⟦../x.json⟧]}", "`../x.json` is not a path below the kubelet's seccomp directory"),
        ("cluster: {logRetentionDays: ⟦100⟧}", "the number 100 is not a possible value"),
        ("cluster: {kms: {deletionWindowDays: ⟦3⟧}}", "3 is out of range"),
        ("cluster: {kubernetesVersion: ⟦\"1.24\"⟧}", "EKS no longer offers Kubernetes 1.24"),
    ];
    for (overrides, message) in wrong {
        let text = silo(&format!("{{{overrides}}}"), "[]");
        // A missing field is shown at the key of its mapping.
        let text = text.replace("rootVolume: ⟦{sizeGiB: 10}⟧", "⟦rootVolume⟧: {sizeGiB: 10}");
        expect(&text, &[message]);
    }
}

#[test]
fn waivers_are_checked() {
    let with = |waivers: &str| silo("{imds: {hopLimit: 2}}", waivers);
    let errors = expect(
        &with("[{control: NET-2, reason: old, until: ⟦2026-11-22⟧}]"),
        &["the waiver expired on 2026-11-22; today is 2026-11-23"],
    );
    assert_eq!((errors[0].code, errors[0].path.as_str()), (Code::Waiver, "spec.tenants[0].waivers[0].until"));
    loaded(&with("[{control: NET-2, reason: its last day, until: 2026-11-23}]"));
    loaded(&with("[{control: NET-2, reason: a whole year, until: 2027-11-23}]"));
    expect(&with("[{control: NET-2, reason: x, until: ⟦2027-11-24⟧}]"), &["a waiver is valid for at most a year"]);
    expect(&with("[{control: NET-2, reason: x, until: ⟦soon⟧}]"), &["`soon` is not a date"]);
    expect(&with("[{control: NET-2, reason: x, until: ⟦2027-02-30⟧}]"), &["`2027-02-30` is not a date"]);
    expect(&with("[{control: NET-2, reason: ⟦\" \"⟧, until: 2027-01-01}]"), &["the reason is empty"]);
    expect(&with("[{⟦control⟧: NET-2, until: 2027-01-01}]"), &["`reason` is missing"]);
    let twice = "[{control: NET-2, reason: x, until: 2027-01-01}, {control: ⟦NET-2⟧, reason: y, until: 2027-01-01}]";
    expect(&with(twice), &["`NET-2` is given twice"]);
    let text = silo("{}", "[{control: ⟦NET-22⟧, reason: x, until: 2027-01-01}]");
    assert_eq!(help(&expect(&text, &["`NET-22` is not a possible value"])), "did you mean `NET-2`?");
    let warnings = loaded(&silo("{}", "[{control: NET-2, reason: x, until: 2027-01-01}]")).warnings;
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].message, "tenant `12345` doesn't weaken NET-2, so its waiver has no effect");
}

#[test]
fn quotas_that_a_pool_would_break_are_warned_of() {
    let spec = |count: usize, tier: &str| {
        let tenants: String =
            (0..count).map(|i| format!("    - {{id: x{i}, name: n{i}, tier: {tier}, pool: shared-1}}\n")).collect();
        loaded(&format!("{BASE}{tenants}"))
    };
    assert!(spec(28, "standard").warnings.is_empty());
    let warnings = spec(29, "standard").warnings;
    assert_eq!(
        warnings[0].message,
        "the spec needs 31 managed node groups in one cluster, but the default quota is 30"
    );
    assert_eq!((warnings[0].code, warnings[0].at.line), (Code::Quota, 23));
    assert!(spec(9, "serverless").warnings.is_empty());
    assert_eq!(
        spec(10, "serverless").warnings[0].message,
        "the spec needs 11 Fargate profiles in one cluster, but the default quota is 10"
    );
}

#[test]
fn everything_is_found_at_once() {
    let text = BASE
        .replace("us-east-1", "⟦us_east_1⟧")
        .replace("zones: 3", "zones: ⟦9⟧")
        .replace("10.64.0.0/12", "⟦10.64.1.0/12⟧")
        .replace("name: initech", "⟦nmae⟧: initech")
        .replace("tier: premium", "tier: ⟦gold⟧")
        .replace(
            "overrides: {}  # of the pool tenant",
            "overrides: {imds: {hopLimit: ⟦3⟧, ⟦tokns⟧: required}, pods: {allowedCapabilities: [⟦SYS_ADMIN⟧]}}",
        );
    expect(
        &text,
        &[
            "`us_east_1` is not a region",
            "`10.64.1.0/12` has bits set beyond its prefix",
            "9 is out of range",
            "there is no tier `gold`",
            "there is no field `nmae`",
            "with a hop limit of 3, pods can read the node's credentials (NET-2, IMDSv2 required, hop limit 1)",
            "there is no field `tokns`",
            "no tenant may have `SYS_ADMIN`: with it, a container controls the node",
        ],
    );
}

// ---------------------------------------------------------------------------------------
// Profiles from a directory
// ---------------------------------------------------------------------------------------

fn with_profiles(files: &[(&str, &str)], text: &str) -> Result<Spec, SpecErrors> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    load(Path::new("tenancy.yaml"), text, &LoadOptions { profiles_dir: Some(dir.path().to_owned()), today: TODAY })
}

/// The errors of profile files, as `FILE:LINE:COLUMN: MESSAGE`.
fn profile_errors(files: &[(&str, &str)]) -> Vec<String> {
    let errors = with_profiles(files, BASE).unwrap_err().0;
    let name = |e: &SpecError| e.at.file.file_name().unwrap().to_string_lossy().into_owned();
    errors.iter().map(|e| format!("{}:{}:{}: {}", name(e), e.at.line, e.at.column, e.message)).collect()
}

#[test]
fn profiles_extend_and_replace_the_built_in_ones() {
    let gold = "extends: premium\nnodes: {max: 20}\noverridable: [nodes.max]\n";
    let standard = "extends: standard\npriorityClass: {value: 7}\n";
    let text = BASE.replace("tier: premium", "tier: gold");
    let spec = with_profiles(&[("gold.yaml", gold), ("standard.yml", standard)], &text).unwrap();
    assert_eq!((spec.tenants[0].profile.nodes.max, spec.tenants[0].profile.nodes.min), (20, 2));
    assert_eq!(spec.tenants[1].profile.priority_class.value, 7);
    let all = "extends: baseline\nimds: {hopLimit: 1}\ncluster: {logRetentionDays: 30}\n";
    let spec = with_profiles(&[("baseline.yaml", all)], BASE).unwrap();
    assert_eq!(spec.pools[0].profile.cluster.log_retention_days, 30, "what all extend");
}

#[test]
fn profile_files_are_checked_like_the_spec() {
    assert_eq!(profile_errors(&[("a.yaml", "extends: premum\n")]), ["a.yaml:1:10: there is no profile `premum`"]);
    assert_eq!(
        profile_errors(&[("a.yaml", "extends: b\n"), ("b.yaml", "extends: a\n")]),
        [
            "a.yaml:1:10: the profile `b` extends itself, directly or through other profiles",
            "b.yaml:1:10: the profile `a` extends itself, directly or through other profiles"
        ]
    );
    assert_eq!(
        profile_errors(&[("a.yaml", "extends: premium\nnode: {}\nimds:\n  hopLimit: two\n")]),
        [
            "a.yaml:2:1: there is no field `node`",
            "a.yaml:4:13: the value must be a whole number, but it is the text `two`"
        ]
    );
    assert_eq!(
        profile_errors(&[("a.yaml", "extends: premium\noverridable: [nodes.mx]\n")]),
        ["a.yaml:2:15: there is no setting `nodes.mx`"]
    );
    assert_eq!(
        profile_errors(&[("a.yaml", "extends: standard\nnodes: {min: 5}\ncluster: {logRetentionDays: 30}\n")]),
        ["a.yaml:2:14: `min` is 5, but `max` is only 3", "a.yaml:3:1: `cluster` has no effect on a tenant in a pool"]
    );
    assert_eq!(profile_errors(&[("a.yaml", "isolation: silo\nnodes: {}\n")])[0], "a.yaml:1:1: `addons` is missing");
    assert_eq!(profile_errors(&[("a.yaml", "")]), ["a.yaml:0:0: the file is empty"]);
    assert_eq!(
        profile_errors(&[
            ("a.yaml", "extends: standard\npolicyEngine: psp\n"),
            ("b.yaml", "extends: shared\npolicyEngine: psp\n")
        ]),
        [
            "a.yaml:2:1: `policyEngine` has no effect on a tenant in a pool",
            "b.yaml:2:15: Kubernetes 1.25 removed PodSecurityPolicy"
        ]
    );
}

#[test]
fn a_weak_profile_needs_a_waiver_from_each_tenant() {
    let weak = [("standard.yaml", "extends: standard\nimds: {hopLimit: 2}\n")];
    let errors = with_profiles(&weak, BASE).unwrap_err().0;
    let places: Vec<_> =
        errors.iter().map(|e| (e.path.as_str(), e.at.line, e.related.as_ref().unwrap().at.line)).collect();
    assert_eq!(places, [("spec.tenants[1].tier", 32, 2)]);
    let waiver = "waivers: [{control: NET-2, reason: x, until: 2027-01-01}]";
    with_profiles(&weak, &edited("serviceAccounts: []", waiver)).unwrap();
}

#[test]
fn an_override_that_makes_its_tier_invalid_is_reported() {
    let custom = "extends: standard\nnodes: {amiFamily: custom, amiId: ami-12345678}\n";
    let text = pooled("{nodes: {amiFamily: bottlerocket}}");
    let errors = with_profiles(&[("standard.yaml", custom)], &text).unwrap_err().0;
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].message, "`amiId` is only for the family `custom`");
    assert_eq!((errors[0].path.as_str(), errors[0].at.line), ("spec.tenants[1].overrides.nodes.amiFamily", 35));
}

#[test]
fn a_directory_that_is_none_is_an_error() {
    let options = LoadOptions { profiles_dir: Some("/nowhere/at/all".into()), today: TODAY };
    let errors = load(Path::new("t"), BASE, &options).unwrap_err().0;
    assert!(errors[0].message.starts_with("can't be read: "), "{}", errors[0]);
}

// ---------------------------------------------------------------------------------------
// Schema, names, canonical form
// ---------------------------------------------------------------------------------------

fn validator() -> jsonschema::Validator {
    jsonschema::draft202012::new(&schema()).unwrap()
}

#[test]
fn the_published_schema_accepts_the_examples() {
    let validator = validator();
    for (name, text) in EXAMPLES {
        let json: serde_json::Value = serde_yaml::from_str(text).unwrap();
        let errors: Vec<String> = validator.iter_errors(&json).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
    }
}

/// Editors check patterns, and `load` checks the meaning. Both must refuse the same forms.
#[test]
fn the_published_schema_and_load_agree_on_forms() {
    let validator = validator();
    let edits = [
        ("  name: acme", "  name: Acme"),
        ("us-east-1", "us_east_1"),
        ("\"123456789012\"", "\"1234\""),
        ("\"1.36\"", "latest"),
        ("id: \"12345\"", "id: Big-One"),
        ("name: globex", "name: a/b"),
        ("name: globex", "name: \"a \""),
        ("    - name: shared-1", "    - name: Shared"),
        ("  tags: {}", "  iam: {path: x}"),
        ("  tags: {}", "  images: {tenants: X}"),
        ("overrides: {}\n      waivers: []", "waivers: [{control: NET-2, reason: x, until: soon}]"),
        ("serviceAccounts: []", "access: [{issuer: \"http://a.example\", claim: a, value: b}]"),
        ("  tags: {}", "  gateway: {url: \"https://a.example/\"}"),
        ("    - name: shared-1\n", "    - {name: shared-1, gateway: {image: \"r.example/x:1\"}}\n"),
        ("serviceAccounts: []", "access: [{certificate: x}]"),
        ("serviceAccounts: []", "access: [{issuer: \"https://a.example\", claim: a}]"),
        ("serviceAccounts: []", "access: [{}]"),
        ("serviceAccounts: []", "access: [{role: \"arn:aws:iam::111122223333:role/x\", certificate: \"a:b\"}]"),
        ("serviceAccounts: []", "access: [{role: \"arn:aws:iam::111122223333:role/x\", value: b}]"),
        ("serviceAccounts: []", "serviceAccounts: [{name: X, policies: [\"arn:aws:iam::aws:policy/x\"]}]"),
        ("overrides: {}\n      waivers: []", "overrides: {namespace: {quota: {pods: x}}}"),
        ("overrides: {}\n      waivers: []", "overrides: {nodes: {instanceTypes: [x]}}"),
        ("overrides: {}\n      waivers: []", "overrides: {nodes: {amiFamily: custom, amiId: x}}"),
        ("overrides: {}\n      waivers: []", "overrides: {nodes: {releaseVersion: 1.66.0}}"),
        ("overrides: {}\n      waivers: []", "overrides: {addons: {coredns: {version: x}}}"),
        ("overrides: {}\n      waivers: []", "overrides: {cluster: {kubernetesVersion: x}}"),
    ];
    for (from, to) in edits {
        let text = edited(from, to);
        let json: serde_json::Value = serde_yaml::from_str(&text).unwrap();
        assert!(!validator.is_valid(&json), "the schema accepts {to}");
        assert!(try_load(&text).is_err(), "load accepts {to}");
    }
    assert!(validator.is_valid(&serde_yaml::from_str(BASE).unwrap()));
}

#[test]
fn every_pattern_of_the_schema_has_a_test_above() {
    let mut patterns = BTreeSet::new();
    fn walk(json: &serde_json::Value, found: &mut BTreeSet<String>) {
        match json {
            serde_json::Value::Object(map) => {
                found.extend(map.get("pattern").and_then(|p| p.as_str()).map(str::to_owned));
                map.values().for_each(|v| walk(v, found));
            }
            serde_json::Value::Array(items) => items.iter().for_each(|v| walk(v, found)),
            _ => {}
        }
    }
    walk(&schema(), &mut patterns);
    assert_eq!(patterns.len(), 19, "add a case to the test before this one: {patterns:#?}");
}

#[test]
fn the_canonical_form_says_only_what_is_meant() {
    let spec = loaded(BASE);
    let text = canonical(&spec);
    let (head, tenants) = BASE.split_once("  tenants:\n").unwrap();
    let blocks: Vec<String> = tenants.split("    - id").skip(1).map(|b| format!("    - id{b}")).collect();
    let shuffled = format!("# a comment\n{head}  tenants:\n{}{}{}", blocks[2], blocks[0], blocks[1]);
    assert_eq!(canonical(&loaded(&shuffled)), text);
    let flow: serde_json::Value = serde_yaml::from_str(BASE).unwrap();
    assert_eq!(canonical(&loaded(&flow.to_string())), text, "JSON is YAML");
    assert_eq!(canonical(&loaded(&BASE.replace("    zones: 3\n", ""))), text, "a default written out");
    assert_ne!(canonical(&loaded(&BASE.replace("globex", "globes"))), text);
    assert_ne!(digest(&loaded(&BASE.replace("zones: 3", "zones: 2"))), digest(&spec));
    assert_eq!(digest(&spec).len(), 64);
}

#[test]
fn uid_ranges_never_move() {
    assert_eq!(uid_range("12345"), UidRange { first: 1_151_412_736, last: 1_151_412_991 });
}

#[test]
fn controls_have_stable_ids() {
    for control in Control::ALL {
        assert_eq!(control.id().parse::<Control>().as_ref(), Ok(control));
    }
    assert_eq!(Control::PodHostPath.id(), "POD-4");
    assert_eq!(Control::ALL.len(), 27);
}

#[test]
fn names_are_as_the_examples_show() {
    let spec = loaded(EXAMPLES[3].1);
    let names = Names::new(&spec);
    let (silo, pool) = (Owner::Tenant("12345"), Owner::Pool("shared-1"));
    assert_eq!(names.cluster(silo), "acme-t-12345");
    assert_eq!(names.cluster(pool), "acme-p-shared-1");
    assert_eq!(names.role(silo, "cluster"), "acme-us-east-1-t-12345-cluster");
    let [premium, standard, serverless] = ["12345", "23456", "34567"].map(|id| spec.tenant(id).unwrap());
    assert_eq!(names.workload_role(premium, "uploader"), "acme-us-east-1-t-12345-silo-sa-uploader");
    assert_eq!(names.home_role(standard, "nodes"), "acme-us-east-1-t-23456-pool-shared-1-nodes");
    assert_eq!(names.home_role(serverless, "nodes"), "acme-us-east-1-t-34567-fargate-shared-1-nodes");
    assert_eq!(names.home_launch_template(standard, "nodes"), "acme-t-23456-pool-shared-1-nodes");
    assert_eq!(names.security_group(pool, "control-plane"), "acme-p-shared-1-control-plane");
    assert_eq!(names.launch_template(silo, "nodes"), "acme-t-12345-nodes");
    assert_eq!(names.kms_alias(pool), "alias/ringfence/acme-p-shared-1");
    assert_eq!(names.cluster_log_group(pool), "/aws/eks/acme-p-shared-1/cluster");
    assert_eq!(names.flow_log_group(pool), "/ringfence/acme-p-shared-1/flow-logs");
    assert_eq!(names::node_group("12345"), "t-12345");
    assert_eq!(names::fargate_profile("12345"), "t-12345");
}

#[test]
fn the_longest_names_fit_and_stay_apart() {
    let mut spec = loaded(BASE);
    spec.name = "a".repeat(32);
    spec.region = "ap-southeast-99".to_owned();
    let names = Names::new(&spec);
    let id = |last: &str| format!("{}{last}", "x".repeat(31));
    let (a, b) = (id("1"), id("2"));
    let pool = "p".repeat(40);
    for owner in [Owner::Tenant(&a), Owner::Pool(&pool)] {
        assert!(names.cluster(owner).len() <= names::MAX_CLUSTER);
        let role = names.role(owner, "pod-execution");
        assert!(role.len() <= names::MAX_ROLE && role.ends_with("-pod-execution"), "{role}");
        assert!(names.kms_alias(owner).len() <= names::MAX_KMS_ALIAS);
        assert!(names.cluster_log_group(owner).len() <= names::MAX_LOG_GROUP);
    }
    assert_ne!(names.role(Owner::Tenant(&a), "node"), names.role(Owner::Tenant(&b), "node"));
    let account = "s".repeat(63);
    let at = |id: &str, isolation| Tenant { id: id.to_owned(), isolation, ..spec.tenants[0].clone() };
    let homes = [
        at(&a, Isolation::Silo),
        at(&b, Isolation::Silo),
        at(&a, Isolation::Pool { pool: pool.clone() }),
        at(&a, Isolation::Pool { pool: format!("{pool}2") }),
        at(&a, Isolation::Fargate { pool: pool.clone() }),
    ];
    let workloads: BTreeSet<String> = homes.iter().map(|t| names.workload_role(t, &account)).collect();
    let nodes: BTreeSet<String> = homes.iter().map(|t| names.home_role(t, "pod-execution")).collect();
    let templates: BTreeSet<String> = homes.iter().map(|t| names.home_launch_template(t, "nodes")).collect();
    assert_eq!([workloads.len(), nodes.len(), templates.len()], [homes.len(); 3]);
    assert!(workloads.iter().chain(&nodes).all(|n| n.len() <= names::MAX_ROLE));
    assert!(templates.iter().all(|n| n.len() <= names::MAX_LAUNCH_TEMPLATE));
}

// ---------------------------------------------------------------------------------------
// Arbitrary input
// ---------------------------------------------------------------------------------------

/// For any text, the result is a spec, or errors with places in the text.
fn survives(text: &str) {
    if let Err(errors) = try_load(text) {
        assert!(!errors.0.is_empty());
        let lines = text.split(['\n', '\r']).count();
        for error in &errors.0 {
            assert!(error.at.line <= lines, "{error}");
            assert!(error.at.text_column <= error.at.text.chars().count() + 1, "{error}");
        }
        assert!(!errors.to_string().is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn load_never_panics_on_text(text in any::<String>()) {
        survives(&text);
    }

    #[test]
    fn load_never_panics_on_yaml_like_text(text in "[a-z&*!<>{}\\[\\]:,\"'|#~ \t\n\r0-9é-]{0,200}") {
        survives(&text);
    }

    #[test]
    fn load_never_panics_on_a_damaged_spec(
        which in 0..EXAMPLES.len(),
        start in 0usize..2000,
        length in 0usize..60,
        with in "[a-z0-9:{}\\[\\], \n\"/~.é-]{0,12}",
    ) {
        let characters: Vec<char> = EXAMPLES[which].1.chars().collect();
        let start = start % characters.len();
        let end = (start + length).min(characters.len());
        let text: String = characters[..start].iter().copied().chain(with.chars()).chain(characters[end..].iter().copied()).collect();
        survives(&text);
    }

    #[test]
    fn the_order_of_tenants_changes_nothing(order in Just((0..20usize).collect::<Vec<_>>()).prop_shuffle()) {
        let text = EXAMPLES[0].1;
        let (head, tenants) = text.split_once("  tenants:\n").unwrap();
        let lines: Vec<&str> = tenants.lines().collect();
        let shuffled: String = order.iter().map(|i| format!("{}\n", lines[*i])).collect();
        prop_assert_eq!(canonical(&loaded(&format!("{head}  tenants:\n{shuffled}"))), canonical(&loaded(text)));
    }
}
