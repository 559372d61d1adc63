//! Answers that are lost after the call was carried out.

use super::*;

/// The first answer to each change is lost, although the change is made.
/// Create, change and destroy succeed all the same, and no resource is made
/// twice.
async fn once(what: &str) {
    lives_through(&format!("faults: [{{only: changes, first: true, after: {what}}}]")).await;
    note(&format!("every answer to a change lost once: {what}; apply, change, destroy"), 3, "as undisturbed");
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
async fn answered_with_internal_errors() {
    once("internal").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answered_with_overload_errors() {
    once("busy").await;
}
