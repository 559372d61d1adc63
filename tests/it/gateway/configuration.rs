//! Mistakes in a gateway's configuration: each is named before the gateway listens.

use std::fs;
use std::process::Command;

use rcgen::{ExtendedKeyUsagePurpose, SanType};
use serde_json::{Value, json};

use super::fixture::{AUDIENCE, Authority, ISSUER};
use crate::support::kubernetes::merged;

#[test]
fn mistakes_are_named_before_the_gateway_listens() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    let authority = Authority::new();
    let [certificate, key] =
        authority.issue(vec![SanType::IpAddress([127, 0, 0, 1].into())], ExtendedKeyUsagePurpose::ServerAuth);
    let [_, other_key] = authority.client("spiffe://x/y");
    write("ca.crt", authority.pem());
    write("tls.crt", &certificate);
    write("tls.key", &key);
    write("other.key", &other_key);
    write("token", "t");
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/gateway/tenancy.yaml");
    write("tenancy.yaml", &fs::read_to_string(example).unwrap());
    let three = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/three-tiers/tenancy.yaml");
    let good = json!({
        "listen": "127.0.0.1:0", "status": "127.0.0.1:0",
        "tls": {"certificate": "tls.crt", "key": "tls.key"},
        "clusters": {"shared-1": {"server": "https://127.0.0.1:1", "certificateAuthority": "ca.crt", "tokenFile": "token"}},
        "issuers": [{"issuer": ISSUER, "audiences": [AUDIENCE]}],
    });
    let aws = |name: &str| json!({"aws": {"name": name, "regions": ["us-east-2"], "accounts": ["123456789012"]}});
    let shared = |change: Value| json!({"clusters": {"shared-1": change}});
    for (change, spec, expected) in [
        (json!({"listn": "x"}), "tenancy.yaml", "listn"),
        (json!({"issuers": null}), "tenancy.yaml", "nobody could log in"),
        (json!({"issuers": [{"issuer": ISSUER, "audiences": []}]}), "tenancy.yaml", ISSUER),
        (
            json!({"issuers": [{"issuer": ISSUER, "audiences": ["a"], "algorithms": ["HS256"]}]}),
            "tenancy.yaml",
            "HS256",
        ),
        (json!({"clusters": null}), "tenancy.yaml", "clusters"),
        (
            json!({"clusters": {"shared-9": {"server": "https://x", "tokenFile": "token"}}}),
            "tenancy.yaml",
            "`shared-9`, which is no cluster of the spec",
        ),
        (shared(json!({"eks": "acme-p-shared-1"})), "tenancy.yaml", "exactly one of `tokenFile` and `eks`"),
        (shared(json!({"tokenFile": "absent"})), "tenancy.yaml", "absent"),
        (shared(json!({"server": "http://10.0.0.1"})), "tenancy.yaml", "isn't reached by https"),
        (shared(json!({"certificateAuthority": null})), "tenancy.yaml", "has no `certificateAuthority`"),
        (shared(json!({"certificateAuthority": "token"})), "tenancy.yaml", "certificate authority"),
        (json!({"tls": {"key": "other.key"}}), "tenancy.yaml", "tls.crt can't be used"),
        (json!({"tls": {"certificate": "absent"}}), "tenancy.yaml", "absent can't be used"),
        (json!({"limits": {"streams": 0}}), "tenancy.yaml", "a limit of 0"),
        (json!({"traces": {"endpoint": "collector:4317"}}), "tenancy.yaml", "traces can't be sent to `collector:4317`"),
        (json!({"traces": {"endpoint": "https://x", "ratio": 2}}), "tenancy.yaml", "from 0 to 1"),
        (
            json!({"traces": {"endpoint": "https://x", "certificateAuthority": "token"}}),
            "tenancy.yaml",
            "token` can't be used as a certificate authority",
        ),
        (aws("acme-p-shared-1"), "tenancy.yaml", "which is the name of a cluster"),
        (json!({}), three, "no tenant with `access`"),
        (json!({}), "nowhere.yaml", "nowhere.yaml"),
    ] {
        write("gateway.yaml", &merged(good.clone(), &change).to_string());
        // A gateway that starts would serve until the time is over.
        let output = Command::new("timeout")
            .args(["30", env!("CARGO_BIN_EXE_ringfence")])
            .args(["gateway", "--config", "gateway.yaml", "-f", spec])
            .current_dir(dir.path())
            .env_clear()
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{change}: {text}");
        assert!(text.contains(expected), "{change}: {expected}: {text}");
        assert!(!text.contains("listens on"), "{change}: {text}");
    }
}

/// The image has nothing but the program, and runs as the user that the Deployments ask for.
#[test]
fn the_image_has_the_program_and_nothing_else() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("Dockerfile")).unwrap();
    let (build, last) = text.rsplit_once("\nFROM ").unwrap();
    assert!(build.contains("\nRUN make static\n"), "{build}");
    assert!(fs::read_to_string(root.join("Makefile")).unwrap().contains("\nstatic:"));
    let last: Vec<&str> = last.lines().collect();
    assert_eq!(last[0], "scratch");
    assert_eq!(last.iter().filter(|line| line.starts_with("RUN ")).count(), 0);
    let user = last.iter().find_map(|line| line.strip_prefix("USER ")).unwrap();
    let (user, group) = user.split_once(':').unwrap();
    for template in ["gateway", "webhook"] {
        let file = root.join(format!("templates/manifests/cluster/{template}.yaml"));
        let text = fs::read_to_string(file).unwrap();
        for field in [format!("runAsUser: {user}\n"), format!("runAsGroup: {group}\n")] {
            assert!(text.contains(&field), "{template}: {field}");
        }
        assert!(text.contains("readOnlyRootFilesystem: true"), "{template}");
    }
}
