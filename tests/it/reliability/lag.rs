//! Eventual consistency: reads, and checks of other calls, that don't see
//! recent changes.

use super::*;

async fn behind(script: &str) {
    lives_through(script).await;
    note(&format!("reads behind: {script}; apply, change, destroy"), 3, "as undisturbed");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_services_lag_by_ten_seconds() {
    behind("lag: {'*': 10}").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn iam_lags_by_half_a_minute() {
    behind("lag: {iam: 30, eks: 30, ec2: 2}").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_lag_and_answers_are_lost() {
    behind("{lag: {'*': 10}, faults: [{only: changes, first: true, after: drop}]}").await;
}

/// A list names what the next call doesn't find: its answers lag behind each other, or somebody deleted it in between.
/// What can't be read isn't taken for what doesn't exist.
#[tokio::test(flavor = "multi_thread")]
async fn a_listed_resource_that_is_not_found_is_read_again() {
    let ground = Ground::new(&three_tiers());
    ground.undisturbed(&apply()).await;
    let not_found = "ResourceNotFoundException";
    let mut wrong = Vec::new();
    for (call, code) in [
        ("ec2:DescribeVpcAttribute", "InvalidVpcID.NotFound"),
        ("ec2:DescribeLaunchTemplateVersions", "InvalidLaunchTemplateId.NotFound"),
        ("eks:DescribeCluster", not_found),
        ("eks:DescribeAddon", not_found),
        ("eks:DescribeNodegroup", not_found),
        ("eks:DescribeFargateProfile", not_found),
        ("eks:DescribeAccessEntry", not_found),
        ("eks:ListAssociatedAccessPolicies", not_found),
        ("eks:List*", not_found),
        ("kms:DescribeKey", "NotFoundException"),
        ("kms:GetKeyPolicy", "NotFoundException"),
        ("kms:GetKeyRotationStatus", "NotFoundException"),
        ("kms:ListResourceTags", "NotFoundException"),
        ("logs:ListTagsForResource", not_found),
    ] {
        ground.faults(&format!(
            "faults: [{{call: '{call}', times: 1, before: {{error: {{code: {code}, message: no}}}}}}]"
        ));
        let session = ground.session().await.unwrap();
        match session.plan(&apply(), false).await {
            Ok((_, plan)) if plan.steps.is_empty() && plan.blocked.is_empty() => {}
            Ok((_, plan)) => wrong.push(format!("{call}: {:?} {:?}", steps(&plan), plan.blocked)),
            Err(error) => wrong.push(format!("{call}: {error:?}")),
        }
        assert!(ground.server.struck().0 > 0, "{call} wasn't called");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
