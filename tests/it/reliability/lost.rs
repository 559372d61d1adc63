//! Answers that get lost after the work was done.

use super::*;

/// Every change is done, and its answer lost, once: applied, changed and taken
/// down all the same, with nothing twice.
async fn once(what: &str) {
    let spec = three_tiers();
    let (calm, rough) = (Ground::new(&spec), Ground::new(&spec));
    for policy in [apply(), destroy()] {
        calm.undisturbed(&policy).await;
        rough.faults(&format!("faults: [{{only: changes, first: true, after: {what}}}]"));
        rough.undisturbed(&policy).await;
        rough.faults("{}");
        let differences = calm.estate().differences(&rough.estate());
        assert!(differences.is_empty(), "{what}: {differences:#?}");
    }
    note(&format!("every answer to a change lost once: {what}"), 1, "as undisturbed");
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped() {
    once("drop").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cut() {
    once("cut").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replaced_by_a_page() {
    once("html").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn told_as_internal_errors() {
    once("internal").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn told_as_overload() {
    once("busy").await;
}
