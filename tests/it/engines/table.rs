//! docs/engines.md: what each engine admits and refuses. `make engines` writes it anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::corpus::CLUSTERS;
use super::{Row, Rows, gatekeeper, opa, psp};

const HEAD: &str = "\
# Policy engines

The rules stand once, in the admission policies of `templates/manifests/cluster`. `policyEngine` of a cluster's profile adds an engine
to them:

| `policyEngine` | what it adds | where it is described |
|---|---|---|
| `native` | nothing: ValidatingAdmissionPolicy, from Kubernetes 1.36 on MutatingAdmissionPolicy, and Pod Security Admission | [guard.md](guard.md) |
| `webhook` | ringfence's own admission webhook | [webhook.md](webhook.md) |
| `gatekeeper` | ConstraintTemplates, Constraints and mutators | [gatekeeper.md](gatekeeper.md) |
| `opa` | Rego in ConfigMaps, as kube-mgmt loads it | [opa.md](opa.md) |
| `psp` | nothing on EKS, which has no such version. `render --policy-engine psp` writes PodSecurityPolicies for others | [psp.md](psp.md) |

The native policies stay in force with every engine. They run inside of the API server. So a rule that an engine can't take is no
hole, and neither is an engine that is down, unless the engine refuses then.

## Comparison

The same requests are given to the native policies and to the real engines: Gatekeeper's webhook, OPA with what kube-mgmt writes into
it, and an API server of 1.24 with the plugin PodSecurityPolicy. The requests are those that a validating webhook sees, after the
native decoration.
The native verdict is the guard's. Other tests hold the guard to real API servers ([guard.md](guard.md)). The webhook is the guard
itself.

`admitted` and `refused` are the engine's verdicts. `as native` counts the requests with the same verdict. PodSecurityPolicy sees
new Pods only, so it has fewer requests.

This table is written by a test: `make engines`.
";

const TAIL: &str = "
No engine admits what the native policies refuse for any other reason than those above: the test fails for it.

The engines and the API servers are built from their Go modules in `tests/kubernetes`, at the versions in `go.mod`.
";

/// The rows of an engine and of the native policies.
fn native() -> Rows {
    let mut rows = Rows::new();
    for case in CLUSTERS.iter().flat_map(|cluster| &cluster.cases) {
        rows.entry(case.suite.clone()).or_default().add(case.refusals.is_empty(), None);
    }
    rows
}

fn table(engines: &[(&str, Rows)]) -> String {
    let mut text = String::from("\n| requests | engine | admitted | refused | as native |\n|---|---|---|---|---|\n");
    let suites: BTreeSet<&String> = engines.iter().flat_map(|(_, rows)| rows.keys()).collect();
    for suite in suites {
        for (engine, rows) in engines {
            let Some(Row { admitted, refused, same, .. }) = rows.get(suite) else { continue };
            writeln!(text, "| {suite} | {engine} | {admitted} | {refused} | {same} |").unwrap();
        }
    }
    text.push_str("\n## Differences\n\n| engine | requests | reason |\n|---|---|---|\n");
    for (engine, rows) in engines {
        let mut reasons: BTreeMap<&String, usize> = BTreeMap::new();
        for (reason, count) in rows.values().flat_map(|row| &row.differences) {
            *reasons.entry(reason).or_default() += count;
        }
        for (reason, count) in reasons {
            writeln!(text, "| {engine} | {count} | {reason} |").unwrap();
        }
    }
    text
}

#[test]
#[ignore = "`make engines` runs it: it asks all engines about everything"]
fn the_table_in_the_docs_is_what_the_engines_answer() {
    let engines = [
        ("native", native()),
        ("gatekeeper", gatekeeper::ROWS.clone()),
        ("opa", opa::rows()),
        ("psp", psp::ROWS.clone()),
    ];
    let text = format!("{HEAD}{}{TAIL}", table(&engines));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/engines.md");
    if std::env::var_os("RINGFENCE_UPDATE_GOLDEN").is_some() {
        fs::write(&file, &text).unwrap();
    }
    assert!(fs::read_to_string(&file).unwrap_or_default() == text, "docs/engines.md differs:\n{text}");
}
