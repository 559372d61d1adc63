//! Reads that don't know yet what was changed, and checks that don't either.

use super::*;

/// Made, changed nothing, and taken down by reads that are `seconds` old.
async fn behind(script: &str) {
    let spec = three_tiers();
    let (calm, slow) = (Ground::new(&spec), Ground::new(&spec));
    for policy in [apply(), destroy()] {
        calm.undisturbed(&policy).await;
        slow.faults(script);
        slow.undisturbed(&policy).await;
        slow.faults("{}");
        let differences = calm.estate().differences(&slow.estate());
        assert!(differences.is_empty(), "{script}: {differences:#?}");
    }
    note(&format!("reads behind: {script}"), 1, "as undisturbed");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_by_ten_seconds() {
    behind("lag: {'*': 10}").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn iam_by_half_a_minute() {
    behind("lag: {iam: 30, eks: 30, ec2: 2}").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_too() {
    behind("{lag: {'*': 10}, faults: [{only: changes, first: true, after: drop}]}").await;
}
