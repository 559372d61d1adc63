//! Eventual consistency: reads, and checks of other calls, that don't see
//! recent changes.

use super::*;

async fn behind(script: &str) {
    lives_through(script).await;
    note(&format!("reads behind: {script}; apply, change, destroy"), 3, "as undisturbed");
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
