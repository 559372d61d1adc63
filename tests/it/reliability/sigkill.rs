//! The real program, killed from outside by SIGKILL.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use futures::StreamExt;
use tempfile::TempDir;

use super::*;

/// The number of kills over all cases.
const KILLS: u64 = 50;

/// A sandbox, and a directory in which the program runs.
struct Outside {
    ground: Ground,
    dir: TempDir,
}

impl Outside {
    fn new(spec: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tenancy.yaml"), spec).unwrap();
        Self { ground: Ground::at(spec, 1000.0), dir }
    }

    /// A command whose lock's lease lasts `lease`: after a kill, the next run
    /// waits that long.
    fn command(&self, args: &[&str], lease: &str) -> Command {
        let mut command = Command::new(PathBuf::from(env!("CARGO_BIN_EXE_ringfence")));
        command
            .args(args)
            .args(["--auto-approve", "--lock-lease", lease])
            .current_dir(self.dir.path())
            .env_clear()
            .env("HOME", self.dir.path())
            .env("AWS_ENDPOINT_URL", format!("http://{}", self.ground.server.addr()))
            .env("AWS_ACCESS_KEY_ID", ACCOUNT)
            .env("AWS_SECRET_ACCESS_KEY", "x")
            .stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    async fn run(&self, args: &[&str]) {
        let mut command = self.command(args, "60s");
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
        assert!(output.status.success(), "{args:?}\nstdout: {out}\nstderr: {err}");
    }

    /// Runs the program until the sandbox gets change `k`, then kills it. False
    /// if the program ended before.
    async fn killed(&self, args: &[&str], k: u64) -> bool {
        // The answer to change `k` never comes.
        self.ground.faults(&format!("faults: [{{only: changes, nth: {k}, after: hang}}]"));
        let mut child = self.command(args, "8s").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let killed = loop {
            if self.ground.server.struck().0 > 0 {
                child.kill().unwrap();
                break true;
            }
            if child.try_wait().unwrap().is_some() {
                break false;
            }
            tokio::task::yield_now().await;
            Clock::real().sleep(Duration::from_millis(2)).await;
        };
        tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
        self.ground.faults("{}");
        killed
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_times() {
    let cases = [three_tiers(), alone("premium"), alone("standard"), alone("serverless")];
    let mut killed = 0;
    for (case, spec) in (0..).zip(cases) {
        let calm = Outside::new(&spec);
        let mut wanted = Vec::new();
        for args in [&["apply"][..], &["destroy", "--delete-logs"]] {
            calm.run(args).await;
            wanted.push(calm.ground.estate());
        }
        let (spec, wanted) = (Arc::new(spec), Arc::new(wanted));
        // The kills are spread over the lifecycle of an estate: create and
        // destroy.
        let share = KILLS / 4 + u64::from(case < KILLS % 4);
        let tries = (0..share).map(|n| {
            let (spec, wanted) = (spec.clone(), wanted.clone());
            tokio::spawn(async move {
                let outside = Outside::new(&spec);
                let (ending, k) = (n % 3 == 2, 2 + n * 4 + case);
                if ending {
                    outside.run(&["apply"]).await;
                }
                let args = if ending { &["destroy", "--delete-logs"][..] } else { &["apply"] };
                let killed = outside.killed(args, k).await;
                outside.run(args).await;
                let differences = wanted[usize::from(ending)].differences(&outside.ground.estate());
                assert!(differences.is_empty(), "{args:?}, killed at change {k}: {differences:#?}");
                u64::from(killed)
            })
        });
        let tries = futures::stream::iter(tries.collect::<Vec<_>>()).buffer_unordered(8);
        killed += tries.fold(0, async |sum, one| sum + one.unwrap()).await;
    }
    assert_eq!(killed, KILLS);
    note("SIGKILL from outside: apply and destroy, three tiers and each tier alone", KILLS as usize, "as undisturbed");
}
