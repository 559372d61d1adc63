//! Environment variables that other AWS tools read: certificate bundles, proxies, endpoints of single services.
//! `tests/front/front.py` is the proxy.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};

use super::*;
use crate::support::moto;

/// A running `front.py`. It ends when this is dropped, because its stdin closes then.
struct Front {
    child: Child,
    said: BufReader<ChildStdout>,
    port: u16,
}

impl Front {
    fn start(args: &[&str]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/front/front.py");
        let mut child = Command::new(moto::python())
            .arg(script)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        Self { child, said, port: line.trim().parse().unwrap() }
    }

    /// Ends it, and returns its output.
    fn end(mut self) -> String {
        drop(self.child.stdin.take());
        let mut text = String::new();
        std::io::Read::read_to_string(&mut self.said, &mut text).unwrap();
        self.child.wait().unwrap();
        text
    }
}

/// A served sandbox for `single-silo`, with the port that it listens on.
fn served(estate: &Estate) -> (Served, String) {
    let served = Served::start(estate, None);
    let port = served.server.addr().port().to_string();
    (served, port)
}

#[test]
fn a_certificate_bundle_of_the_users_own_is_trusted() {
    let estate = Estate::new(&SINGLE_SILO);
    let (_served, port) = served(&estate);
    let bundle = estate.path().join("ca.pem");
    let front = Front::start(&["tls", &port, bundle.to_str().unwrap()]);
    let url = format!("https://127.0.0.1:{}", front.port);
    against(&url, &mut estate.bare(&["plan"])).refuses(&["unreachable", "certificate", "AWS_CA_BUNDLE"]);
    against(&url, estate.bare(&["plan", "--detailed-exitcode"]).env("AWS_CA_BUNDLE", &bundle)).exits(2);
    let missing = estate.path().join("missing.pem");
    against(&url, estate.bare(&["plan"]).env("AWS_CA_BUNDLE", &missing)).refuses(&["AWS_CA_BUNDLE", "missing.pem"]);
    front.end();
}

#[test]
fn calls_go_through_the_proxy_except_for_no_proxy_hosts() {
    let estate = Estate::new(&SINGLE_SILO);
    let (_served, port) = served(&estate);
    let front = Front::start(&["proxy", &port]);
    let proxy = format!("http://127.0.0.1:{}", front.port);
    let far = "http://aws.example:80";
    against(far, estate.bare(&["plan", "--detailed-exitcode"]).env("HTTP_PROXY", &proxy)).exits(2);
    let excluded = &mut estate.bare(&["plan"]);
    against(far, excluded.env("HTTP_PROXY", &proxy).env("NO_PROXY", "aws.example")).refuses(&["unreachable"]);
    let seen = front.end();
    // One line for each connection.
    assert!(!seen.is_empty());
    assert!(seen.lines().all(|line| line.contains("http://aws.example")), "{seen}");
}

#[test]
fn a_service_can_have_an_endpoint_of_its_own() {
    let estate = Estate::new(&SINGLE_SILO);
    let (served, _) = served(&estate);
    let plan = |services: &[&str], args: &[&str]| {
        let mut command = estate.bare(&[&["plan", "--detailed-exitcode"], args].concat());
        for service in services {
            command.env(format!("AWS_ENDPOINT_URL_{service}"), served.url());
        }
        // The endpoint for all other services is a port on which nothing listens.
        against("http://127.0.0.1:9", &mut command)
    };
    let mut services = vec!["STS", "EC2", "EKS", "IAM", "KMS", "CLOUDWATCH_LOGS"];
    // Only the image releases are read from Systems Manager.
    let run = plan(&services, &[]).exits(2);
    let said = run.out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("it is unknown whether the image is the newest: ssm:GetParameters"), "{said}");
    plan(&services, &["--upgrade"]).refuses(&["ssm:GetParameters"]);
    services.push("SSM");
    let run = plan(&services, &[]).exits(2);
    assert!(!run.out.contains("isn't known"), "{}", run.out);
}

/// A run with `profile` of these configuration files and no credentials in the environment.
fn with_profile(estate: &Estate, profile: &str, config: &str, args: &[&str]) -> Command {
    fs::write(estate.path().join("aws-config"), config).unwrap();
    let mut command = estate.bare(args);
    command.env("AWS_CONFIG_FILE", estate.path().join("aws-config")).env("AWS_PROFILE", profile);
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    command
}

const BASE: &str = "[profile base]\naws_access_key_id = 123456789012\naws_secret_access_key = not-for-any-output\n";

#[test]
fn an_invalid_endpoint_is_named() {
    let estate = Estate::new(&SINGLE_SILO);
    let (served, _) = served(&estate);
    let says = |name: &str, value: &str| format!("{name} is `{value}`, which isn't the URL of an endpoint");
    for value in ["not-a-url", "127.0.0.1:4599", "ftp://aws.example", "https://"] {
        let run = against(value, &mut estate.bare(&["plan"]));
        run.refuses(&[&says("AWS_ENDPOINT_URL", value), "https://HOST", "unset it"]);
    }
    let mut command = estate.bare(&["plan"]);
    let run = against(&served.url(), command.env("AWS_ENDPOINT_URL_EKS", "eks.local"));
    run.refuses(&[&says("AWS_ENDPOINT_URL_EKS", "eks.local")]);
    let config = format!("{BASE}endpoint_url = nowhere\n");
    Run::of(&mut with_profile(&estate, "base", &config, &["plan"]))
        .refuses(&[&says("the profile's endpoint_url", "nowhere")]);
    assert!(served.server.counts().is_empty(), "{:?}", served.server.counts());
}

#[test]
fn a_fips_endpoint_and_an_endpoint_exclude_each_other() {
    let estate = Estate::new(&SINGLE_SILO);
    let (served, _) = served(&estate);
    let both = ["AWS_USE_FIPS_ENDPOINT", "only AWS's own endpoints have a FIPS form"];
    let run = against(&served.url(), estate.bare(&["plan"]).env("AWS_USE_FIPS_ENDPOINT", "true"));
    assert!(!run.err.contains("run the same command"), "{}", run.err);
    run.refuses(&[&both[..], &["AWS_ENDPOINT_URL sets an endpoint"]].concat());
    let config = format!("{BASE}use_fips_endpoint = true\nendpoint_url = {}\n", served.url());
    let run = Run::of(&mut with_profile(&estate, "base", &config, &["plan"]));
    run.refuses(&[&both[..], &["the profile's endpoint_url sets an endpoint"]].concat());
}

#[test]
fn an_unreachable_host_is_named() {
    let estate = Estate::new(&SINGLE_SILO);
    against("http://aws.invalid:8443", &mut estate.bare(&["plan"]))
        .refuses(&["unreachable: aws.invalid:8443 can't be reached"]);
}

/// AWS gives the same answer for unknown access keys and for regions that aren't enabled. Neither is a missing
/// permission.
#[test]
fn refused_keys_are_not_a_missing_permission() {
    let estate = Estate::new(&SINGLE_SILO);
    let (served, _) = served(&estate);
    let sts = |code: &str| {
        format!(
            "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>No.</Message></Error></ErrorResponse>"
        )
    };
    let ec2 = |code: &str| {
        format!("<Response><Errors><Error><Code>{code}</Code><Message>No.</Message></Error></Errors></Response>")
    };
    for (what, body, helps) in [
        ("GetCallerIdentity", sts("InvalidClientTokenId"), "hasn't enabled"),
        ("GetCallerIdentity", sts("SignatureDoesNotMatch"), "clock"),
        ("DescribeAvailabilityZones", ec2("AuthFailure"), "hasn't enabled"),
        ("DescribeAvailabilityZones", ec2("OptInRequired"), "isn't signed up"),
    ] {
        let refusal = bad_days::response("403 Forbidden", "Content-Type: text/xml\r\n", &body);
        let (url, _) = bad_days::in_front(served.server.addr(), what, refusal);
        let run = against(&url, &mut estate.bare(&["plan"]));
        assert!(!run.err.contains("iam-policy"), "{}", run.err);
        run.refuses(&["access denied", what, helps]);
    }
}

#[test]
fn a_role_that_cannot_be_assumed_is_told_in_words() {
    let estate = Estate::new(&SINGLE_SILO);
    let (served, _) = served(&estate);
    let role = "[profile PROFILE]\nrole_arn = arn:aws:iam::123456789012:role/nobody\nsource_profile = base\n";
    let config = |name: &str, more: &str| format!("{BASE}{}{more}\n", role.replace("PROFILE", name));
    let run = |name: &str, more: &str| {
        let mut command = with_profile(&estate, name, &config(name, more), &["plan"]);
        let run = Run::of(command.env("AWS_ENDPOINT_URL", served.url()));
        for dump in ["ServiceError", "Unhandled", "Some(", "Error {"] {
            assert!(!run.err.contains(dump), "{}", run.err);
        }
        run
    };
    let denied = ["the role can't be assumed", "sts:AssumeRole answered AccessDenied"];
    run("plain", "").refuses(&[&denied[..], &["trust policy"]].concat());
    let mfa = run("mfa", "mfa_serial = arn:aws:iam::123456789012:mfa/jane");
    mfa.refuses(
        &[&denied[..], &["can't ask for MFA codes", "aws configure export-credentials --profile mfa"]].concat(),
    );
}

/// `aws login` stores its sessions in files of its own, which the SDK doesn't read.
#[test]
fn a_session_of_aws_login_is_got_from_the_cli() {
    let estate = Estate::new(&SINGLE_SILO);
    let config = "[profile login]\nlogin_session = arn:aws:iam::123456789012:user/x\n";
    let run = Run::of(&mut with_profile(&estate, "login", config, &["plan"]));
    assert!(!run.err.contains("feature"), "{}", run.err);
    run.refuses(&["no AWS credentials", "`aws login`", "aws configure export-credentials --profile login"]);
}

/// The key is `cloudwatch_logs`, as the AWS CLI reads it, and not `cloudwatch-logs` (aws-sdk-rust #1060).
#[test]
fn services_of_a_profile_have_endpoints() {
    let estate = Estate::new(&SINGLE_SILO);
    let (served, _) = served(&estate);
    let services = ["eks", "ec2", "iam", "sts", "kms", "cloudwatch_logs", "ssm", "service_quotas"];
    let section: String = services.map(|name| format!("{name} =\n  endpoint_url = {}\n", served.url())).concat();
    let config = format!("{BASE}services = lab\n[services lab]\n{section}");
    let run = |args: &[&str]| Run::of(&mut with_profile(&estate, "base", &config, args));
    let plan = run(&["plan", "--detailed-exitcode"]).exits(2);
    assert!(!plan.err.contains("can't be read"), "{}", plan.err);
    // The environment takes precedence over the profile.
    let mut command = with_profile(&estate, "base", &config, &["plan"]);
    Run::of(command.env("AWS_ENDPOINT_URL_CLOUDWATCH_LOGS", "http://127.0.0.1:9"))
        .refuses(&["127.0.0.1:9 can't be reached"]);
}

/// From a directory of templates or profiles, only files inside of it are read. Links that lead out of it are refused.
#[test]
fn links_do_not_lead_out_of_directories() {
    let estate = Estate::new(&SINGLE_SILO);
    let secret = estate.path().join("secret");
    fs::write(&secret, "not-for-any-output").unwrap();
    for (option, file) in [("--templates", "manifests/tenant/limits.yaml"), ("--profiles", "premium.yaml")] {
        let dir = tempfile::tempdir_in(estate.path()).unwrap();
        let file = dir.path().join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let with = |option| ["render", option, dir.path().to_str().unwrap(), "--out", "rendered"].map(str::to_owned);
        let run = || {
            let args = with(option);
            Run::of(&mut estate.bare(&args.iter().map(String::as_str).collect::<Vec<_>>()))
        };
        std::os::unix::fs::symlink(&secret, &file).unwrap();
        run().refuses(&["leads out of the directory"]);
        fs::remove_file(&file).unwrap();
        // Opening a pipe would wait for ever, so pipes aren't opened.
        assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
        run().refuses(&["isn't an ordinary file"]);
        fs::remove_file(&file).unwrap();
        // A link to its own directory, which would give endless paths.
        for name in ["a", "b"] {
            std::os::unix::fs::symlink(dir.path(), file.with_file_name(name)).unwrap();
        }
        let run = run();
        assert!(matches!(run.code, Some(0 | 1)), "{run:?}");
    }
}
