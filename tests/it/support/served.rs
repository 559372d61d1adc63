//! A sandbox that is served on an endpoint, like AWS, and runs of the program against it.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use aws_credential_types::provider::ProvideCredentials;
use ringfence::aws::{self, Access, Aws};
use ringfence::engine::clock::Clock;
use ringfence::sandbox::{Options, Server};
use tempfile::TempDir;

/// Fast enough that each operation has ended at the first poll.
const SPEED: f64 = 100_000.0;

pub struct Served {
    pub server: Server,
    /// Clients of the account's administrator.
    admin: Arc<Aws>,
    /// The access key with which the program runs.
    key: String,
    dir: TempDir,
}

impl Served {
    /// A sandbox with the principals and policies to which the spec refers, and nothing else.
    pub async fn start(spec: &str) -> Self {
        Self::begin(spec, false).await
    }

    /// The same with enforced policies. The program runs as a role with `policy`.
    pub async fn enforced(spec: &str, policy: &str) -> Self {
        let mut served = Self::begin(spec, true).await;
        served.act_as("deployer", policy).await;
        served
    }

    async fn begin(spec: &str, enforce_iam: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let arns = || spec.split([' ', '\n', '[', ']', ',']).filter(|word| word.starts_with("arn:"));
        let account = arns().find_map(|arn| arn.split(':').nth(4)).unwrap_or(super::ACCOUNT).to_owned();
        let region = spec.split_once("region: ").and_then(|(_, rest)| rest.lines().next()).unwrap().to_owned();
        let options = Options {
            account: account.clone(),
            principals: arns().filter(|a| a.contains(":role/")).map(str::to_owned).collect(),
            speed: SPEED,
            record: Some(dir.path().join("calls")),
            enforce_iam,
            ..Options::default()
        };
        let server = Server::start(options, ([127, 0, 0, 1], 0).into()).unwrap();
        let access =
            Access { region, sandbox: Some((format!("http://{}", server.addr()), account.clone())), patience: None };
        let aws = Aws::connect(&access, "foreign", Clock::real()).await.unwrap();
        for policy in arns().filter_map(|arn| arn.split_once(":policy/")).map(|(_, name)| name) {
            let document =
                r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:GetObject","Resource":"*"}]}"#;
            aws.iam.create_policy().policy_name(policy).policy_document(document).send().await.unwrap();
        }
        let served = Self { server, admin: aws, key: account, dir };
        served.write(spec);
        served
    }

    /// From now on the program runs as a new role with `policy`.
    pub async fn act_as(&mut self, role: &str, policy: &str) {
        let iam = &self.admin.iam;
        let made = iam.create_role().role_name(role).path("/platform/").assume_role_policy_document(self.trust());
        let arn = made.send().await.unwrap().role.unwrap().arn;
        let put = iam.put_role_policy().role_name(role).policy_name("ringfence").policy_document(policy);
        put.send().await.unwrap();
        self.assume(&arn).await;
    }

    /// From now on the program runs as an existing role. The role's trust policy is replaced, so that nobody else can
    /// assume it.
    pub async fn act_in(&mut self, role: &str) {
        let iam = &self.admin.iam;
        let trust = self.trust();
        iam.update_assume_role_policy().role_name(role).policy_document(trust).send().await.unwrap();
        let arn = iam.get_role().role_name(role).send().await.unwrap().role.unwrap().arn;
        self.assume(&arn).await;
    }

    async fn assume(&mut self, arn: &str) {
        let session = aws::assume(&self.admin.config, arn).await.unwrap();
        let credentials = session.credentials_provider().unwrap().provide_credentials().await.unwrap();
        self.key = credentials.access_key_id().to_owned();
    }

    /// A trust policy for the account's root.
    fn trust(&self) -> String {
        let root = format!("arn:{}:iam::{}:root", self.admin.scope.partition, self.admin.scope.account);
        serde_json::json!({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Principal": {"AWS": root}, "Action": "sts:AssumeRole"},
        ]})
        .to_string()
    }

    /// From now on the program runs as the account's administrator.
    pub fn act_as_administrator(&mut self) {
        self.key = self.admin.scope.account.clone();
    }

    /// Clients with the program's credentials.
    pub async fn connect(&self, region: &str, tenancy: &str) -> Arc<Aws> {
        let sandbox = Some((format!("http://{}", self.server.addr()), self.key.clone()));
        let access = Access { region: region.to_owned(), sandbox, patience: None };
        Aws::connect(&access, tenancy, Clock::real()).await.unwrap()
    }

    pub fn write(&self, spec: &str) {
        fs::write(self.dir.path().join("tenancy.yaml"), spec).unwrap();
    }

    /// The file with all calls so far, as lines of JSON.
    pub fn calls(&self) -> PathBuf {
        self.dir.path().join("calls")
    }

    /// Runs the program. It must exit with `code`. Returns its stderr.
    pub async fn run(&self, args: &[&str], code: i32) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringfence"));
        command
            .args(args)
            .current_dir(self.dir.path())
            .env_clear()
            .env("HOME", self.dir.path())
            .env("AWS_ENDPOINT_URL", format!("http://{}", self.server.addr()))
            .env("AWS_ACCESS_KEY_ID", &self.key)
            .env("AWS_SECRET_ACCESS_KEY", "x")
            .stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
        assert_eq!(output.status.code(), Some(code), "{args:?}\nstdout: {out}\nstderr: {err}");
        err.into_owned()
    }
}
