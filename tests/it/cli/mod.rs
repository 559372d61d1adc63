//! Runs the program as users do: the real binary, in a directory of its own, with a sandbox of its own.
//!
//! `RINGFENCE_UPDATE_GOLDEN=1` writes the golden files anew. Read the diff before you commit it.

mod bad_days;
mod blocked;
mod check;
mod confirmed;
mod doctor;
mod drift;
mod engines;
mod environment;
mod foreign;
mod lifecycle;
mod lock;
mod moves;
mod nodes;
mod offers;
pub mod others;
mod output;
mod plans;
mod principals;
mod quotas;
mod reach;
mod removal;
mod saved;
mod secrets;
mod selection;
mod stop;
mod usage;
mod versions;
mod written;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};

use ringfence::aws::{Access, Aws};
use ringfence::engine::clock::Clock;
use ringfence::sandbox::{Options, Script, Server};
use serde_json::Value;
use tempfile::TempDir;

/// The sandbox's speed: fast enough for a test, and slow enough that a busy computer doesn't run into time limits of
/// steps.
const SPEED: &str = "150";

/// A complete tenancy of `examples/`.
#[derive(Debug)]
struct Example {
    name: &'static str,
    region: &'static str,
    account: &'static str,
    /// Customer managed policies to which its spec refers.
    policies: &'static [&'static str],
    applied: OnceLock<Applied>,
}

/// The state of a sandbox before and after the example was applied.
#[derive(Debug)]
struct Applied {
    before: Vec<u8>,
    after: Vec<u8>,
}

static THREE_TIERS: Example = Example::new("three-tiers", "us-east-1", "123456789012", &[]);
static SINGLE_SILO: Example = Example::new("single-silo", "eu-central-1", "123456789012", &[]);
static REGULATED: Example =
    Example::new("regulated", "us-gov-west-1", "210987654321", &["PlatformBoundary", "treasury-archive"]);
static TWO_POOLS: Example = Example::new("two-pools", "eu-west-1", "123456789012", &["salt-ledger", "amber-invoices"]);
static POOL_OF_TWENTY: Example = Example::new("pool-of-twenty", "us-west-2", "123456789012", &[]);

static GATEWAY: Example = Example::new("gateway", "us-east-2", "123456789012", &[]);

static EXAMPLES: [&Example; 6] = [&THREE_TIERS, &SINGLE_SILO, &REGULATED, &TWO_POOLS, &POOL_OF_TWENTY, &GATEWAY];

impl Example {
    const fn new(
        name: &'static str,
        region: &'static str,
        account: &'static str,
        policies: &'static [&'static str],
    ) -> Self {
        Self { name, region, account, policies, applied: OnceLock::new() }
    }

    fn text(&self) -> String {
        fs::read_to_string(root().join("examples").join(self.name).join("tenancy.yaml")).unwrap()
    }

    /// The example is applied once for all tests that need it.
    fn applied(&'static self) -> &'static Applied {
        self.applied.get_or_init(|| {
            let estate = Estate::planted(self);
            let before = fs::read(estate.state()).unwrap();
            estate.run(&["apply", "--auto-approve"]).exits(0);
            Applied { before, after: fs::read(estate.state()).unwrap() }
        })
    }
}

#[test]
fn every_example_is_tried() {
    let there: BTreeSet<String> = fs::read_dir(root().join("examples"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        // Workflows, which hold no spec.
        .filter(|name| name != "ci")
        .collect();
    assert_eq!(there, EXAMPLES.iter().map(|e| e.name.to_owned()).collect());
}

/// A directory with `tenancy.yaml` and a sandbox.
struct Estate {
    dir: TempDir,
    example: &'static Example,
}

impl Estate {
    /// The example's spec, and an empty sandbox.
    fn new(example: &'static Example) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sandbox")).unwrap();
        let estate = Self { dir, example };
        estate.write(&example.text());
        estate
    }

    /// The same, with resources in the sandbox that aren't ours: a VPC with a subnet, a role, a log group, and the
    /// policies to which the spec refers.
    fn planted(example: &'static Example) -> Self {
        let estate = Self::new(example);
        estate.sandbox(async |aws, _| plant(aws, example).await);
        estate
    }

    /// The applied example, with the same resources that aren't ours.
    fn applied(example: &'static Example) -> Self {
        let estate = Self::new(example);
        fs::write(estate.state(), &example.applied().after).unwrap();
        estate
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn state(&self) -> PathBuf {
        self.path().join("sandbox/state.json")
    }

    fn spec(&self) -> PathBuf {
        self.path().join("tenancy.yaml")
    }

    fn write(&self, spec: &str) {
        fs::write(self.spec(), spec).unwrap();
    }

    /// Replaces a text that occurs once in the spec.
    fn edit(&self, from: &str, to: &str) {
        self.edit_in("tenancy.yaml", from, to);
    }

    /// The same in a spec with another file name.
    fn edit_in(&self, file: &str, from: &str, to: &str) {
        let file = self.path().join(file);
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(text.matches(from).count(), 1, "{from:?} stands once in {}", self.example.name);
        fs::write(file, text.replace(from, to)).unwrap();
    }

    /// A command of the binary with this spec, without a terminal and without environment variables.
    fn bare(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringfence"));
        command.args(args).current_dir(self.path()).env_clear().env("HOME", self.path()).stdin(Stdio::null());
        command
    }

    /// The same with the estate's sandbox.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.bare(args);
        command.args(["--sandbox=sandbox", "--sandbox-speed", SPEED]);
        command
    }

    /// Runs `args` in a terminal. `tests/front/terminal.py` answers the question.
    fn asked(&self, answer: &str, group: &str, args: &[&str]) -> Command {
        let mut command = Command::new(crate::support::moto::python());
        command.arg(root().join("tests/front/terminal.py")).args([answer, group, env!("CARGO_BIN_EXE_ringfence")]);
        command.args(args).current_dir(self.path()).env_clear().env("HOME", self.path()).env("TERM", "xterm");
        command
    }

    /// Runs the command to its end, and records its calls if `RINGFENCE_RECORD_DIR` is set. Only commands that aren't
    /// killed are recorded, because a killed one leaves half a line.
    fn run(&self, args: &[&str]) -> Run {
        let mut command = self.command(args);
        if let Some(file) = crate::support::record() {
            command.arg("--sandbox-record").arg(file);
        }
        Run::of(&mut command)
    }

    /// The plan as a JSON document; exits as `plan --detailed-exitcode`.
    fn plan(&self, args: &[&str]) -> Value {
        let run = self.run(&[&["plan", "--format", "json", "--detailed-exitcode"], args].concat());
        let plan = run.json();
        let empty = list(&plan["steps"]).is_empty() && list(&plan["blocked"]).is_empty();
        run.exits(if empty { 0 } else { 2 });
        plan
    }

    /// Changes the sandbox while no command uses it.
    fn sandbox<T: Send>(&self, work: impl AsyncFnOnce(&Aws, &Server) -> T + Send) -> T {
        let served = Served::start(self, None);
        let aws = served.aws();
        let result = std::thread::scope(|scope| {
            scope.spawn(|| served.runtime.block_on(work(&aws, &served.server))).join().unwrap()
        });
        drop(aws);
        let Served { runtime, server, .. } = served;
        runtime.block_on(server.shutdown()).unwrap();
        result
    }

    /// The state of the sandbox, without the traces that AWS keeps of deleted resources for a while, and without
    /// service-linked roles, which belong to the account.
    fn holds(&self) -> Value {
        normal(self.sandbox(async |_, server| server.dump()))
    }
}

/// A sandbox that is served on an endpoint, like AWS.
struct Served {
    runtime: tokio::runtime::Runtime,
    server: Server,
    region: &'static str,
    account: &'static str,
}

impl Served {
    /// Serves the state of the estate's sandbox, and saves it there.
    fn start(estate: &Estate, record: Option<PathBuf>) -> Self {
        Self::with(estate, record, BTreeMap::new())
    }

    /// The same with these service quotas, by code.
    fn with(estate: &Estate, record: Option<PathBuf>, quotas: BTreeMap<String, f64>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let Example { region, account, .. } = estate.example;
        let server = {
            let _inside = runtime.enter();
            let options = Options {
                account: (*account).to_owned(),
                speed: 150.0,
                state_dir: Some(estate.path().join("sandbox")),
                record: record.or_else(crate::support::record),
                quotas,
                ..Options::default()
            };
            Server::start(options, ([127, 0, 0, 1], 0).into()).unwrap()
        };
        Self { runtime, server, region, account }
    }

    fn url(&self) -> String {
        format!("http://{}", self.server.addr())
    }

    fn aws(&self) -> Arc<Aws> {
        let access = Access {
            region: self.region.to_owned(),
            sandbox: Some((self.url(), self.account.to_owned())),
            patience: None,
        };
        self.runtime.block_on(Aws::connect(&access, "foreign", Clock::real())).unwrap()
    }
}

/// Runs a command against `url` with credentials of the estate's account.
fn against(url: &str, command: &mut Command) -> Run {
    Run::of(
        command
            .env("AWS_ENDPOINT_URL", url)
            .env("AWS_ACCESS_KEY_ID", "123456789012")
            .env("AWS_SECRET_ACCESS_KEY", "not-for-any-output"),
    )
}

async fn plant(aws: &Aws, example: &Example) {
    for policy in example.policies {
        let document =
            r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:GetObject","Resource":"*"}]}"#;
        aws.iam.create_policy().policy_name(*policy).policy_document(document).send().await.unwrap();
    }
    let vpc = aws.ec2.create_vpc().cidr_block("172.20.0.0/16").send().await.unwrap();
    let vpc = vpc.vpc().unwrap().vpc_id().unwrap().to_owned();
    aws.ec2.create_subnet().vpc_id(&vpc).cidr_block("172.20.1.0/24").send().await.unwrap();
    let trust = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}"#;
    aws.iam.create_role().role_name("somebody-elses").assume_role_policy_document(trust).send().await.unwrap();
    aws.logs.create_log_group().log_group_name("/somebody/elses").send().await.unwrap();
}

/// A dump without traces of deleted resources (keys until their waiting period ends, NAT gateways for an hour, client
/// tokens), and without service-linked roles and the principals that the spec names.
fn normal(mut dump: Value) -> Value {
    // The sandbox creates AWS's own policies at their first use.
    dump.as_object_mut().unwrap().remove("aws");
    for account in dump.as_object_mut().unwrap().values_mut() {
        let roles = account["iam"]["roles"].as_object_mut().unwrap();
        roles.retain(|name, _| name == "somebody-elses" || !of_the_account(name));
        for region in account["regions"].as_object_mut().unwrap().values_mut() {
            for service in ["ec2", "eks"] {
                region[service].as_object_mut().unwrap().remove("tokens");
            }
            let ec2 = region["ec2"].as_object_mut().unwrap();
            ec2.remove("due");
            ec2["resources"]
                .as_object_mut()
                .unwrap()
                .retain(|id, one| !(id.starts_with("nat-") && one["state"].as_str() == Some("deleted")));
            region["kms"]["keys"].as_object_mut().unwrap().retain(|_, key| key["deletion"].is_null());
            // A released lock counts as nothing.
            region["ssm"]["parameters"].as_object_mut().unwrap().retain(|name, _| !name.starts_with("/ringfence/"));
        }
    }
    dump
}

fn of_the_account(role: &str) -> bool {
    role.starts_with("AWSServiceRoleFor") || ["PlatformAdmin", "SecurityAdmin", "ringfence"].contains(&role)
}

/// The result of a command.
#[derive(Debug)]
struct Run {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Run {
    fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        let run = Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        };
        for text in [&run.out, &run.err] {
            assert!(!text.contains("panicked"), "{text}");
            assert!(!text.contains("not-for-any-output"), "a secret is in the output: {text}");
        }
        run
    }

    #[track_caller]
    fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "\nstdout: {}\nstderr: {}", self.out, self.err);
        self
    }

    /// Asserts exit code 1, and that stderr contains each of `what`.
    #[track_caller]
    fn refuses(self, what: &[&str]) -> Self {
        let run = self.exits(1);
        // Texts are wrapped to the width of the terminal, so line breaks are ignored.
        let said = run.err.split_whitespace().collect::<Vec<_>>().join(" ");
        for text in what {
            assert!(said.contains(text), "stderr doesn't say {text:?}: {}", run.err);
        }
        run
    }

    /// Stdout as one JSON document.
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}\nstdout: {}\nstderr: {}", self.out, self.err))
    }

    /// Stdout as lines of JSON.
    #[track_caller]
    fn lines(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// `action address` of each step, in the plan's order.
fn steps(plan: &Value) -> Vec<String> {
    list(&plan["steps"]).iter().map(|s| format!("{} {}", text(&s["action"]), text(&s["address"]))).collect()
}

/// Compares `found` with the file `golden/NAME`, or writes that file.
#[track_caller]
fn golden(name: &str, found: &str) {
    let file = root().join("tests/it/cli/golden").join(name);
    if std::env::var_os("RINGFENCE_UPDATE_GOLDEN").is_some() {
        fs::write(&file, found).unwrap();
        return;
    }
    let wanted = fs::read_to_string(&file).unwrap_or_default();
    if wanted != found {
        let differs = wanted.lines().zip(found.lines()).find(|(a, b)| a != b);
        panic!("{} differs, first in {differs:#?}; RINGFENCE_UPDATE_GOLDEN=1 writes it anew:\n{found}", file.display());
    }
}
