//! Roles, identity providers, keys and log groups.

use std::sync::Arc;

use aws_sdk_iam::types::Tag as IamTag;
use aws_sdk_kms::types::Tag as KmsTag;
use ringfence::aws::Aws;
use ringfence::engine::address::Address;
use ringfence::engine::error::Class;
use ringfence::engine::kind::{Found, Repair, Round, Status, Verb, Wanted};
use ringfence::engine::packed::Packed;
use ringfence::kinds::aws::iam_role::{self, IamRole};
use ringfence::kinds::aws::kms_key::{self, KmsKey};
use ringfence::kinds::aws::log_group::{self, LogGroup};
use ringfence::kinds::aws::oidc_provider::{self, OidcProvider};
use ringfence::kinds::aws::policy;
use ringfence::kinds::aws::service_linked_role::{self, ServiceLinkedRole};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Contract, Ground, Lack, Subject, contracts, new, on};

const CLIENTS: &str = "aws.oidc-provider: clients changed";
const ROTATION_PERIOD: &str = "aws.kms-key: rotation period changed";
const GROUP_KEY: &str = "aws.log-group: key changed";
const LINKED_NAME: &str = "aws.service-linked-role: name";

pub const LACKS: &[Lack] = &[
    Lack {
        name: CLIENTS,
        reason: "AddClientIDToOpenIDConnectProvider doesn't exist",
        contract: |ground| Box::pin(oidc_provider(ground)),
        fails: "the answer isn't AWS's",
    },
    Lack {
        name: ROTATION_PERIOD,
        reason: "EnableKeyRotation leaves a period that is set as it is",
        contract: |ground| Box::pin(kms_key(ground)),
        fails: "rotation_days",
    },
    Lack {
        name: GROUP_KEY,
        reason: "AssociateKmsKey doesn't exist",
        contract: |ground| Box::pin(log_group(ground)),
        fails: "the answer isn't AWS's",
    },
    Lack {
        name: LINKED_NAME,
        reason: "service-linked roles aren't named as AWS names them",
        contract: |ground| Box::pin(service_linked_role(ground)),
        fails: "AWSServiceRoleForeks-nodegroup",
    },
];

contracts! {
    // The sandbox can't create instance profiles, because ringfence never makes one.
    sandbox: [
        iam_role, role_half_made, service_linked_role, oidc_provider, kms_key, key_half_made, key_disabled,
        key_pending_deletion, log_group, log_group_key_refused, log_group_by_descent, foreign_names,
    ],
    moto: [
        iam_role, role_half_made, role_in_use, service_linked_role, oidc_provider, kms_key, key_half_made,
        key_disabled, key_pending_deletion, log_group, log_group_by_descent, foreign_names,
    ],
}

fn at(name: &str) -> String {
    format!("tenant/1/silo/{name}")
}

fn wanted(address: &str, state: &impl Serialize) -> Wanted {
    Wanted { address: Address::new(address), state: Packed::of(state).unwrap() }
}

/// The tags with one changed, one added and one removed.
pub fn retagged(tags: &ringfence::aws::tags::Tags) -> ringfence::aws::tags::Tags {
    let mut tags = tags.clone();
    tags.insert("cost-center".to_owned(), "other".to_owned());
    tags.insert("team".to_owned(), "shop".to_owned());
    tags.remove("Name");
    tags
}

pub fn trust(service: &str) -> Value {
    policy::canonical(&json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Allow",
            "Principal": {"Service": [service]},
            "Action": ["sts:TagSession", "sts:AssumeRole"],
            "Condition": {"StringEquals": {"aws:SourceAccount": ["123456789012"]}},
        }],
    }))
}

fn allow(actions: &[&str]) -> Value {
    let statement = json!({"Effect": "Allow", "Action": actions, "Resource": ["*"]});
    policy::canonical(&json!({"Version": "2012-10-17", "Statement": [statement]}))
}

pub fn managed(name: &str) -> String {
    format!("arn:aws:iam::aws:policy/{name}")
}

pub fn role_state(ground: &Ground, name: &str) -> iam_role::State {
    iam_role::State {
        name: format!("{}-us-east-1-{name}", ground.aws.tenancy),
        path: format!("/ringfence/{}/", ground.aws.tenancy),
        trust: trust("eks.amazonaws.com"),
        attached: vec![managed("AmazonEKSClusterPolicy"), managed("AmazonEKSVPCResourceController")],
        inline: [("keys".to_owned(), allow(&["kms:Decrypt", "kms:DescribeKey"]))].into(),
        boundary: None,
        tags: ground.tags(&at(name)),
    }
}

async fn iam_role(ground: &Ground) {
    let kind = on(IamRole, &ground.aws);
    let state = role_state(ground, "role");
    let inline = |policies: &[(&str, &[&str])]| iam_role::State {
        inline: policies.iter().map(|(name, actions)| ((*name).to_owned(), allow(actions))).collect(),
        ..state.clone()
    };
    let bounded = |name: Option<&str>| iam_role::State { boundary: name.map(managed), ..state.clone() };
    Contract::new(ground, &kind, &at("role"), &state)
        .update("trust", &iam_role::State { trust: trust("ec2.amazonaws.com"), ..state.clone() })
        .update("trust", &state)
        .update("attached", &iam_role::State { attached: vec![managed("AmazonEKSWorkerNodePolicy")], ..state.clone() })
        .update("attached", &iam_role::State { attached: vec![], ..state.clone() })
        .update("attached", &state)
        .update("inline", &inline(&[("keys", &["kms:Decrypt"]), ("logs", &["logs:PutLogEvents"])]))
        .update("inline", &inline(&[]))
        .update("inline", &state)
        .update("boundary", &bounded(Some("PowerUserAccess")))
        .update("boundary", &bounded(Some("ReadOnlyAccess")))
        .update("boundary", &bounded(None))
        .update("tags", &iam_role::State { tags: retagged(&state.tags), ..state.clone() })
        .drift("tags", |aws, found| async move {
            let tag = |key: &str, value: &str| IamTag::builder().key(key).value(value).build().unwrap();
            let call = aws.iam.tag_role().role_name(&found.id);
            call.tags(tag("cost-center", "mine")).tags(tag("extra", "")).send().await.unwrap();
        })
        .drift("attached", |aws, found| async move {
            let call = aws.iam.attach_role_policy().role_name(&found.id);
            call.policy_arn(managed("AdministratorAccess")).send().await.unwrap();
        })
        .drift("attached", |aws, found| async move {
            let call = aws.iam.detach_role_policy().role_name(&found.id);
            call.policy_arn(managed("AmazonEKSClusterPolicy")).send().await.unwrap();
        })
        .drift("inline.mine", |aws, found| async move {
            let call = aws.iam.put_role_policy().role_name(&found.id).policy_name("mine");
            call.policy_document(allow(&["s3:*"]).to_string()).send().await.unwrap();
        })
        .drift("inline.keys", |aws, found| async move {
            let call = aws.iam.put_role_policy().role_name(&found.id).policy_name("keys");
            call.policy_document(allow(&["kms:*"]).to_string()).send().await.unwrap();
        })
        .drift("trust", |aws, found| async move {
            let call = aws.iam.update_assume_role_policy().role_name(&found.id);
            call.policy_document(trust("lambda.amazonaws.com").to_string()).send().await.unwrap();
        })
        .drift("boundary", |aws, found| async move {
            let call = aws.iam.put_role_permissions_boundary().role_name(&found.id);
            call.permissions_boundary(managed("ReadOnlyAccess")).send().await.unwrap();
        })
        .run()
        .await;
}

/// A creation that stopped after CreateRole is completed. A second generation gets a name of its own.
async fn role_half_made(ground: &Ground) {
    let kind = on(IamRole, &ground.aws);
    let state = role_state(ground, "half");
    let first = new(&at("half"), &state);
    let bare = iam_role::State { attached: vec![], inline: [].into(), ..state.clone() };
    kind.create(&new(&at("half"), &bare)).await.unwrap();
    kind.create(&first).await.unwrap();
    let found = ground.observed(&kind, &first.address).await;
    assert_eq!(found[0].state, first.state);

    let second = ringfence::engine::kind::New { generation: 2, ..first.clone() };
    let made = kind.create(&second).await.unwrap();
    assert_eq!(made.id, format!("{}-g2", state.name));
    let both = ground.observed(&kind, &first.address).await;
    assert_eq!(both.len(), 2);
    assert!(both.iter().all(|f| f.state == first.state));

    // A resource of ours with another address has the name.
    let error = kind.create(&new(&at("other"), &role_state(ground, "half"))).await.unwrap_err();
    assert!(error.help.unwrap().contains(&at("half")));
    for found in &both {
        ground.unmake(&kind, found).await;
    }
}

async fn role_in_use(ground: &Ground) {
    let kind = on(IamRole, &ground.aws);
    let role = ground.make(&kind, &at("busy"), &role_state(ground, "busy")).await;
    let (iam, profile) = (&ground.aws.iam, format!("{}-profile", ground.aws.tenancy));
    iam.create_instance_profile().instance_profile_name(&profile).send().await.unwrap();
    let call = iam.add_role_to_instance_profile().instance_profile_name(&profile);
    call.role_name(&role.id).send().await.unwrap();
    let error = kind.delete(&role).await.unwrap_err();
    assert!(error.help.unwrap().contains(&profile), "the help names the instance profile");
    let call = iam.remove_role_from_instance_profile().instance_profile_name(&profile);
    call.role_name(&role.id).send().await.unwrap();
    iam.delete_instance_profile().instance_profile_name(&profile).send().await.unwrap();
    ground.unmake(&kind, &role).await;
}

async fn service_linked_role(ground: &Ground) {
    let kind = on(ServiceLinkedRole, &ground.aws);
    // The name of the role must match exactly. moto makes up most service-linked role names; only Auto Scaling's is the
    // same as AWS's.
    let service = if ground.has(LINKED_NAME) { "eks-nodegroup" } else { "autoscaling" };
    let state = service_linked_role::State { service: format!("{service}.amazonaws.com") };
    let new = new("tenancy/service-linked-role/linked", &state);
    let predicted = kind.facts.predict(&new, &ground.aws.scope);
    let made = kind.create(&new).await.unwrap();
    let again = kind.create(&new).await.unwrap();
    assert_eq!(made.outputs, again.outputs, "it has been made already, whoever made it");
    assert_eq!(predicted, made.outputs);

    let want = wanted(new.address.as_str(), &state);
    let seen = kind.observe(&Round::default(), &[want]).await.unwrap();
    let [found] = seen.found.as_slice() else { panic!("{seen:?}") };
    assert_eq!((&found.address, &found.state), (&new.address, &new.state));
    assert_eq!(found.outputs, made.outputs);
    assert!(kind.delete(found).await.unwrap());
    let left = kind.observe(&Round::default(), &[wanted(new.address.as_str(), &state)]).await.unwrap();
    assert_eq!(left.found.len(), 1, "deleting leaves it");
    assert!(kind.observe(&Round::default(), &[]).await.unwrap().found.is_empty());
}

async fn oidc_provider(ground: &Ground) {
    let kind = on(OidcProvider, &ground.aws);
    let state = oidc_provider::State {
        url: format!("https://oidc.eks.us-east-1.amazonaws.com/id/{:A>32}", ground.aws.tenancy.to_uppercase()),
        clients: vec!["sts.amazonaws.com".to_owned()],
        tags: ground.tags(&at("oidc")),
    };
    let more = vec!["sts.amazonaws.com".to_owned(), "another".to_owned()];
    Contract::new(ground, &kind, &at("oidc"), &state)
        .update("tags", &oidc_provider::State { tags: retagged(&state.tags), ..state.clone() })
        .drift("tags", |aws, found| async move {
            let tag = IamTag::builder().key("extra").value("x").build().unwrap();
            let call = aws.iam.tag_open_id_connect_provider().open_id_connect_provider_arn(&found.id);
            call.tags(tag).send().await.unwrap();
        })
        .part(CLIENTS, |contract| {
            contract
                .update("clients", &oidc_provider::State { clients: more, ..state.clone() })
                .update("clients", &state)
                .drift("clients", |aws, found| async move {
                    let call = aws.iam.add_client_id_to_open_id_connect_provider();
                    call.open_id_connect_provider_arn(&found.id).client_id("mine").send().await.unwrap();
                })
        })
        .run()
        .await;
}

pub fn key_state(ground: &Ground, name: &str) -> kms_key::State {
    let account = "arn:aws:iam::123456789012:root";
    kms_key::State {
        alias: format!("alias/ringfence/{}-{name}", ground.aws.tenancy),
        description: "Kubernetes API data".to_owned(),
        policy: policy::canonical(&json!({
            "Version": "2012-10-17",
            "Statement": [{"Sid": "Account", "Effect": "Allow", "Principal": {"AWS": [account]}, "Action": ["kms:*"], "Resource": "*"}],
        })),
        rotation: true,
        rotation_days: 365,
        deletion_window_days: 7,
        tags: ground.tags(&at(name)),
    }
}

async fn kms_key(ground: &Ground) {
    let kind = on(KmsKey, &ground.aws);
    let state = key_state(ground, "key");
    let mut open = state.policy.clone();
    open["Statement"].as_array_mut().unwrap().push(json!({
        "Sid": "Logs", "Effect": "Allow", "Principal": {"Service": "logs.us-east-1.amazonaws.com"},
        "Action": ["kms:Decrypt", "kms:Encrypt"], "Resource": "*",
    }));
    let opened = open.clone();
    Contract::new(ground, &kind, &at("key"), &state)
        .update("description", &kms_key::State { description: "other".to_owned(), ..state.clone() })
        .update("policy", &kms_key::State { policy: open, ..state.clone() })
        .update("policy", &state)
        .update("rotation", &kms_key::State { rotation: false, ..state.clone() })
        .update("rotation", &state)
        .update("deletion_window_days", &kms_key::State { deletion_window_days: 30, ..state.clone() })
        .update("alias", &kms_key::State { alias: format!("{}-other", state.alias), ..state.clone() })
        .update("tags", &kms_key::State { tags: retagged(&state.tags), ..state.clone() })
        .drift("tags", |aws, found| async move {
            let tag = KmsTag::builder().tag_key("extra").tag_value("x").build().unwrap();
            aws.kms.tag_resource().key_id(&found.id).tags(tag).send().await.unwrap();
        })
        .drift("rotation", |aws, found| async move {
            aws.kms.disable_key_rotation().key_id(&found.id).send().await.unwrap();
        })
        .drift("policy", |aws, found| async move {
            let call = aws.kms.put_key_policy().key_id(&found.id).policy_name("default");
            call.policy(opened.to_string()).send().await.unwrap();
        })
        .drift("alias", |aws, found| async move {
            aws.kms.delete_alias().alias_name(&found.outputs["alias"]).send().await.unwrap();
        })
        .part(ROTATION_PERIOD, |contract| {
            contract.update("rotation_days", &kms_key::State { rotation_days: 180, ..state.clone() })
        })
        .run()
        .await;
}

/// A key without its alias is found again. A creation that failed in between goes on with the key that it made.
async fn key_half_made(ground: &Ground) {
    let kind = on(KmsKey, &ground.aws);
    let state = key_state(ground, "half");
    let new = new(&at("half"), &state);
    let squatter = ground.aws.kms.create_key().send().await.unwrap();
    let squatter = squatter.key_metadata().unwrap().key_id().to_owned();
    let alias = ground.aws.kms.create_alias().alias_name(&state.alias).target_key_id(&squatter);
    alias.send().await.unwrap();

    kind.create(&new).await.unwrap_err();
    let seen = kind.observe(&Round::default(), &[wanted(new.address.as_str(), &state)]).await.unwrap();
    let half: Vec<&Found> = seen.found.iter().filter(|f| f.address == new.address).collect();
    assert_eq!(half.len(), 1, "the key without an alias is ours");
    assert_eq!(half[0].state["alias"], "");
    assert!(seen.foreign.iter().any(|f| f.address == new.address && f.id == squatter), "{:?}", seen.foreign);

    ground.aws.kms.delete_alias().alias_name(&state.alias).send().await.unwrap();
    let made = kind.create(&new).await.unwrap();
    assert_eq!(made.id, half[0].id, "no second key");
    let found = ground.observed(&kind, &new.address).await;
    assert_eq!(found[0].state, new.state);
    ground.unmake(&kind, &found[0]).await;
    ground.aws.kms.schedule_key_deletion().key_id(squatter).send().await.unwrap();
}

async fn key_disabled(ground: &Ground) {
    let kind = on(KmsKey, &ground.aws);
    let want = new(&at("off"), &key_state(ground, "off"));
    let key = ground.make(&kind, &at("off"), &want.state).await;
    ground.aws.kms.disable_key().key_id(&key.id).send().await.unwrap();
    let found = ground.observed(&kind, &want.address).await;
    assert!(
        matches!(&found[0].status, Status::Failed { why, .. } if why.contains("disabled")),
        "{:?}",
        found[0].status
    );
    assert!(matches!(found[0].status, Status::Failed { repair: Repair::Update, .. }), "{:?}", found[0].status);
    kind.update(&found[0], &want, &[]).await.unwrap();
    let found = ground.observed(&kind, &want.address).await;
    assert_eq!((&found[0].status, &found[0].state), (&Status::Ready, &want.state));
    ground.unmake(&kind, &found[0]).await;
}

/// A deletion that somebody else scheduled is cancelled. After our own deletion, the key counts as absent.
async fn key_pending_deletion(ground: &Ground) {
    let kind = on(KmsKey, &ground.aws);
    let want = new(&at("lost"), &key_state(ground, "lost"));
    let key = ground.make(&kind, &at("lost"), &want.state).await;
    ground.aws.kms.schedule_key_deletion().key_id(&key.id).send().await.unwrap();
    let found = ground.observed(&kind, &want.address).await;
    assert!(
        matches!(&found[0].status, Status::Failed { why, .. } if why.contains("scheduled")),
        "{:?}",
        found[0].status
    );
    assert!(matches!(found[0].status, Status::Failed { repair: Repair::Update, .. }), "{:?}", found[0].status);
    kind.update(&found[0], &want, &[]).await.unwrap();
    let found = ground.observed(&kind, &want.address).await;
    assert_eq!((&found[0].status, &found[0].state), (&Status::Ready, &want.state));
    assert_eq!(found[0].id, key.id);

    ground.aws.kms.schedule_key_deletion().key_id(&key.id).send().await.unwrap();
    let found = ground.observed(&kind, &want.address).await;
    ground.unmake(&kind, &found[0]).await;
    assert!(ground.observed(&kind, &want.address).await.is_empty());
    let another = ground.make(&kind, &at("lost"), &want.state).await;
    assert_ne!(another.id, key.id);
    ground.unmake(&kind, &another).await;
}

fn group_state(ground: &Ground, name: &str) -> log_group::State {
    log_group::State {
        name: format!("/ringfence/{}-{name}/flow-logs", ground.aws.tenancy),
        retention_days: Some(365),
        key: None,
        tags: ground.tags(&at(name)),
    }
}

async fn log_group(ground: &Ground) {
    let (kind, keys) = (on(LogGroup, &ground.aws), on(KmsKey, &ground.aws));
    let mut key = key_state(ground, "logs-key");
    key.policy["Statement"].as_array_mut().unwrap().push(json!({
        "Sid": "Logs", "Effect": "Allow", "Principal": {"Service": "logs.us-east-1.amazonaws.com"},
        "Action": ["kms:Decrypt*", "kms:Describe*", "kms:Encrypt*", "kms:GenerateDataKey*", "kms:ReEncrypt*"], "Resource": "*",
    }));
    let key = ground.make(&keys, &at("logs-key"), &key).await;
    let state = group_state(ground, "logs");
    let days = |days| log_group::State { retention_days: days, ..state.clone() };
    Contract::new(ground, &kind, &at("logs"), &state)
        .update("retention_days", &days(Some(30)))
        .update("retention_days", &days(None))
        .update("retention_days", &state)
        .update("tags", &log_group::State { tags: retagged(&state.tags), ..state.clone() })
        .drift("tags", |aws, found| async move {
            let arn = &found.outputs["arn"];
            aws.logs.tag_resource().resource_arn(arn).tags("extra", "x").send().await.unwrap();
        })
        .drift("retention_days", |aws, found| async move {
            let call = aws.logs.put_retention_policy().log_group_name(&found.id);
            call.retention_in_days(1).send().await.unwrap();
        })
        .part(GROUP_KEY, |contract| {
            contract
                .update("key", &log_group::State { key: Some(key.outputs["arn"].clone()), ..state.clone() })
                .update("key", &state)
        })
        .run()
        .await;
    ground.unmake(&keys, &key).await;
}

/// A key whose policy doesn't allow CloudWatch Logs, or doesn't allow it yet.
async fn log_group_key_refused(ground: &Ground) {
    let (kind, keys) = (on(LogGroup, &ground.aws), on(KmsKey, &ground.aws));
    let key = ground.make(&keys, &at("closed"), &key_state(ground, "closed")).await;
    let state = log_group::State { key: Some(key.outputs["arn"].clone()), ..group_state(ground, "closed") };
    let error = kind.create(&new(&at("closed"), &state)).await.unwrap_err();
    assert_eq!((error.code.as_deref(), error.class), (Some("AccessDeniedException"), Class::NotYet), "{error}");
    ground.unmake(&keys, &key).await;
}

/// EKS itself makes the log group of a cluster, without tags. It counts as ours.
async fn log_group_by_descent(ground: &Ground) {
    let kind = on(LogGroup, &ground.aws);
    let state = log_group::State {
        name: format!("/aws/eks/{}-t-1/cluster", ground.aws.tenancy),
        ..group_state(ground, "cluster")
    };
    ground.aws.logs.create_log_group().log_group_name(&state.name).send().await.unwrap();
    let want = new(&at("cluster"), &state);
    let seen = kind.observe(&Round::default(), &[wanted(want.address.as_str(), &state)]).await.unwrap();
    let [found] = seen.found.as_slice() else { panic!("{seen:?}") };
    assert_eq!(found.address, want.address);
    let made = kind.update(found, &want, &[]).await.unwrap();
    assert_eq!(made.id, state.name);
    let found = ground.observed(&kind, &want.address).await;
    assert_eq!((found[0].generation, &found[0].state), (1, &want.state));
    ground.unmake(&kind, &found[0]).await;
}

/// A resource with a name of ours but without our tags is named, and isn't changed.
async fn foreign_names(ground: &Ground) {
    let aws: &Arc<Aws> = &ground.aws;
    let role = role_state(ground, "foreign");
    aws.iam
        .create_role()
        .role_name(&role.name)
        .assume_role_policy_document(role.trust.to_string())
        .send()
        .await
        .unwrap();
    is_foreign(ground, &on(IamRole, aws), &role, "aws iam tag-role --role-name").await;
    let tag = |key: &str, value: &str| IamTag::builder().key(key).value(value).build().unwrap();
    let call = aws.iam.tag_role().role_name(&role.name).tags(tag("ringfence.dev/tenancy", "another"));
    call.tags(tag("ringfence.dev/region", "eu-west-1")).send().await.unwrap();
    let seen = on(IamRole, aws).observe(&Round::default(), &[wanted(&at("foreign"), &role)]).await.unwrap();
    assert!(
        seen.foreign[0].message.contains("belongs to tenancy `another` in region `eu-west-1`"),
        "{:?}",
        seen.foreign
    );
    aws.iam.delete_role().role_name(&role.name).send().await.unwrap();

    let group = group_state(ground, "foreign");
    aws.logs.create_log_group().log_group_name(&group.name).tags("owner", "me").send().await.unwrap();
    is_foreign(ground, &on(LogGroup, aws), &group, "aws logs tag-resource --resource-arn").await;
    aws.logs.delete_log_group().log_group_name(&group.name).send().await.unwrap();

    let key = key_state(ground, "foreign");
    let id = aws.kms.create_key().send().await.unwrap().key_metadata().unwrap().key_id().to_owned();
    aws.kms.create_alias().alias_name(&key.alias).target_key_id(&id).send().await.unwrap();
    is_foreign(ground, &on(KmsKey, aws), &key, "aws kms tag-resource --key-id").await;
    aws.kms.delete_alias().alias_name(&key.alias).send().await.unwrap();
    aws.kms.schedule_key_deletion().key_id(&id).send().await.unwrap();

    let provider = oidc_provider::State {
        url: format!("https://oidc.eks.us-east-1.amazonaws.com/id/{:B>32}", aws.tenancy.to_uppercase()),
        clients: vec!["sts.amazonaws.com".to_owned()],
        tags: ground.tags(&at("foreign")),
    };
    let call = aws.iam.create_open_id_connect_provider().url(&provider.url).client_id_list("sts.amazonaws.com");
    let arn = call.send().await.unwrap().open_id_connect_provider_arn().unwrap().to_owned();
    let command = "aws iam tag-open-id-connect-provider --open-id-connect-provider-arn";
    is_foreign(ground, &on(OidcProvider, aws), &provider, command).await;
    aws.iam.delete_open_id_connect_provider().open_id_connect_provider_arn(arn).send().await.unwrap();
}

/// Asserts that the kind reports the resource as foreign, says how to adopt it, and doesn't treat it as created.
pub async fn is_foreign(ground: &Ground, kind: &Subject, state: &impl Serialize, command: &str) {
    let want = new(&at("foreign"), state);
    let seen = kind.observe(&Round::default(), &[wanted(want.address.as_str(), state)]).await.unwrap();
    let name = kind.facts.name();
    assert!(!seen.found.iter().any(|f| f.address == want.address), "{name}: {:?}", seen.found);
    let [foreign] = seen.foreign.as_slice() else { panic!("{name}: {:?}", seen.foreign) };
    assert_eq!(foreign.address, want.address);
    for part in [command, "ringfence.dev/tenancy", "ringfence.dev/address", &ground.aws.tenancy, &at("foreign")] {
        assert!(foreign.message.contains(part), "{name}: `{part}` isn't in: {}", foreign.message);
    }
    assert!(kind.facts.pace(Verb::Create).limit > kind.facts.pace(Verb::Create).expected);
    if name != "aws.kms-key" {
        kind.create(&want).await.unwrap_err();
    }
}
