//! A step that can't succeed ends soon with an error. A client that is throttled slows down.

use aws_sdk_ec2::types::Tag;
use ringfence::engine::error::Class;

use super::*;

/// The errors of the failed steps. All other steps are done or skipped.
async fn failures(ground: &Ground) -> Vec<String> {
    let report = ground.run(&apply()).await.unwrap();
    report
        .failed()
        .map(|(line, e)| format!("{}: {e}; {}", line.address, e.help.as_deref().unwrap_or_default()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_error_is_not_retried() {
    let ground = Ground::new(&alone("premium"));
    for (code, said) in
        [("UnauthorizedOperation", "iam-policy"), ("VpcLimitExceeded", "Service Quotas"), ("InvalidVpcRange", "")]
    {
        ground
            .faults(&format!("faults: [{{call: 'ec2:CreateVpc', before: {{error: {{code: {code}, message: No}}}}}}]"));
        let failed = failures(&ground).await;
        assert_eq!(failed.len(), 1, "{failed:?}");
        assert!(failed[0].starts_with(&format!("tenant/7/silo/vpc: ec2:CreateVpc: No ({code})")), "{failed:?}");
        assert!(failed[0].contains(said), "{failed:?}");
        assert_eq!(ground.server.struck().0, 1, "{code} is tried once");
    }
    ground.faults("{}");
    ground.undisturbed(&apply()).await;
    note("a terminal error (denied, quota, invalid): tried once", 3, "named, and the next run goes on");
}

/// EKS answers a missing permission of the caller with InvalidRequestException, and a change of another profile in
/// progress with ResourceInUseException.
#[tokio::test(flavor = "multi_thread")]
async fn a_fargate_profile_that_may_not_be_made_is_tried_once() {
    let ground = Ground::new(&three_tiers());
    ground.faults(
        "faults: [{call: 'eks:CreateFargateProfile', before: {error: {code: InvalidRequestException, message: 'User is not authorized to perform iam:GetRole'}}}]",
    );
    let failed = failures(&ground).await;
    assert!(failed.len() == 1 && failed[0].contains("iam:GetRole"), "{failed:?}");
    assert_eq!(ground.server.struck().0, 1);
}

/// AWS's errors about resources that it doesn't know yet, each answered a few times (sources: `aws::error::class`).
#[tokio::test(flavor = "multi_thread")]
async fn dependencies_that_are_not_visible_yet_are_retried() {
    let said = [
        (
            "eks:CreateCluster",
            "InvalidParameterException",
            "Access denied to KMS key arn:aws:kms:a due to explicit deny policy or revoked grant",
        ),
        ("eks:CreateCluster", "InvalidRequestException", "User not authorized to perform kms:CreateGrant operation"),
        (
            "logs:CreateLogGroup",
            "AccessDeniedException",
            "The specified KMS key does not exist or is not allowed to be used with Arn 'arn:aws:logs:a'",
        ),
        ("logs:CreateLogGroup", "InvalidParameterException", "The specified KMS Key Id could not be found."),
        ("kms:EnableKeyRotation", "DisabledException", "arn:aws:kms:a is disabled."),
        ("iam:CreateOpenIDConnectProvider", "OpenIdIdpCommunicationError", "The issuer can't be reached"),
        (
            "eks:CreatePodIdentityAssociation",
            "InvalidParameterException",
            "Trust policy of the role provided is invalid. Follow the official documentation to resolve the issue.",
        ),
    ];
    let rules = said.map(|(call, code, message)| {
        serde_json::json!({"call": call, "times": 3, "before": {"error": {"code": code, "message": message}}})
    });
    let mut spec = three_tiers();
    for tier in ["tier: standard  ", "tier: serverless  "] {
        let role = "serviceAccounts: [{name: ledger, policies: [arn:aws:iam::aws:policy/AmazonSQSFullAccess]}]";
        spec = spec.replacen(tier, &format!("{role}\n      {tier}"), 1);
    }
    let ground = Ground::new(&spec);
    ground.faults(&serde_json::json!({ "faults": rules }).to_string());
    ground.undisturbed(&apply()).await;
    assert_eq!(ground.server.struck().0, 3 * said.len() as u64, "each is met with");
    note("what AWS doesn't know yet (a new key, role, trust policy, issuer), by text", said.len(), "waited for");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ineffective_permission_is_denied_after_five_minutes() {
    let ground = Ground::new(&alone("premium"));
    let message = "User not authorized to perform kms:CreateGrant operation";
    ground.faults(&format!(
        "faults: [{{call: 'eks:CreateCluster', before: {{error: {{code: InvalidRequestException, message: '{message}'}}}}}}]"
    ));
    let report = ground.run(&apply()).await.unwrap();
    let failed: Vec<_> = report.failed().map(|(_, error)| error).collect();
    let [error] = failed[..] else { panic!("{failed:?}") };
    assert_eq!(error.class, Class::Denied, "{error}");
    let tried = error.message.split_once(", tried for ").and_then(|(_, tried)| tried.split(' ').next()?.parse().ok());
    assert!(tried.is_some_and(|tried: u32| (300..600).contains(&tried)), "{error}");
    assert!(error.message.contains(message) && error.help.as_ref().unwrap().contains("iam-policy"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_end_in_a_report() {
    let ground = Ground::new(&alone("premium"));
    for what in ["throttle", "internal", "busy", "drop", "cut", "html"] {
        ground.faults(&format!("faults: [{{call: 'ec2:CreateVpc', before: {what}}}]"));
        let failed = failures(&ground).await;
        assert_eq!(failed.len(), 1, "{failed:?}");
        assert!(failed[0].contains("ec2:CreateVpc") && failed[0].contains(", tried for "), "{failed:?}");
        assert!(failed[0].contains("the same command") || failed[0].contains("AWS_ENDPOINT_URL"), "{failed:?}");
        let tries = ground.server.struck().0;
        assert!((4..60).contains(&tries), "{what}: {tries} tries");
    }
    ground.faults("{}");
    ground.undisturbed(&apply()).await;
    note(
        "a call that never succeeds, by kind of fault",
        6,
        "named with how long it was tried, and the next run goes on",
    );
}

/// Sends `calls` changes at once through one client, with EC2's token bucket set to `tokens`. Returns how many were
/// throttled.
async fn burst(calls: usize, tokens: &str, speed: f64) -> u64 {
    let ground = Ground::at(&alone("premium"), speed);
    let aws = ground.session().await.unwrap().aws;
    let vpc = aws.ec2.create_vpc().cidr_block("10.0.0.0/16").send().await.unwrap();
    let vpc = vpc.vpc().unwrap().vpc_id().unwrap();
    ground.faults(&format!("faults: [{{call: 'ec2:*', only: changes, over: {tokens}, before: throttle}}]"));
    let tag = |n: usize| Tag::builder().key("n").value(n.to_string()).build();
    let all = (0..calls).map(|n| {
        let call = aws.ec2.create_tags().resources(vpc).tags(tag(n));
        async move {
            // Retries like the executor: other tests of this process may have used up the SDK's own retries.
            for _ in 0..20 {
                if call.clone().send().await.is_ok() {
                    return;
                }
            }
            panic!("it never succeeds");
        }
    });
    futures::future::join_all(all).await;
    ground.server.struck().0
}

/// "Request throttling for the Amazon EC2 API": the bucket of each operation that changes something.
#[tokio::test(flavor = "multi_thread")]
async fn published_limits_are_kept() {
    let throttled = burst(200, "{burst: 50, rate: 5}", 10.0).await;
    // A busy computer sends calls in bunches, so some are throttled. Without our own token bucket, most of them would
    // be.
    assert!(throttled < 40, "{throttled} throttled");
    note("200 changes at once under EC2's published token bucket", 1, &format!("{throttled} throttled"));
}

/// As if others used most of the account's rate. The first calls are throttled, and then the client has learned the
/// rate.
#[tokio::test(flavor = "multi_thread")]
async fn narrower_limits_are_learned() {
    let throttled = burst(45, "{burst: 5, rate: 0.5}", 50.0).await;
    assert!(throttled < 90, "{throttled} throttled");
    note("45 changes at once under a tenth of that", 1, &format!("{throttled} throttled"));
}
