//! The environment that other AWS tools honour: certificate bundles, proxies,
//! endpoints for single services. `tests/front/front.py` stands in between.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};

use super::*;
use crate::support::moto;

/// `front.py`, until it is dropped: its stdin closes then.
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

    /// What it said, to its end.
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
fn calls_go_through_the_proxy_but_for_hosts_that_it_isnt_for() {
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
        // Nothing listens on the port for the rest.
        against("http://127.0.0.1:9", &mut command)
    };
    let mut services = vec!["STS", "EC2", "EKS", "IAM", "KMS", "CLOUDWATCH_LOGS"];
    // Only the releases of images come from Systems Manager.
    let run = plan(&services, &[]).exits(2);
    let said = run.out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("whether their image is the newest isn't known: ssm:GetParameters"), "{said}");
    plan(&services, &["--upgrade"]).refuses(&["ssm:GetParameters"]);
    services.push("SSM");
    let run = plan(&services, &[]).exits(2);
    assert!(!run.out.contains("isn't known"), "{}", run.out);
}

/// A directory of templates or profiles gives what is in it, and nothing that a link leads to.
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
        // Nor is anything waited for that never comes.
        assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
        run().refuses(&["no ordinary file"]);
        fs::remove_file(&file).unwrap();
        // A link to the directory that it is in: each way through it is another one.
        for name in ["a", "b"] {
            std::os::unix::fs::symlink(dir.path(), file.with_file_name(name)).unwrap();
        }
        let run = run();
        assert!(matches!(run.code, Some(0 | 1)), "{run:?}");
    }
}
