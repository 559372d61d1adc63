//! `ringfence sandbox --faults` with other tools than ringfence.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::*;

fn sandbox(script: &str) -> Command {
    let file = std::env::temp_dir().join(format!("ringfence-faults-{}-{}.yaml", std::process::id(), script.len()));
    std::fs::write(&file, script).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringfence"));
    command.args(["sandbox", "--listen", "127.0.0.1:0", "--speed", "1000", "--faults"]).arg(file).env_clear();
    command
}

struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[tokio::test]
async fn a_script_is_obeyed() {
    let script =
        "faults: [{call: 'ec2:CreateVpc', nth: 2, before: {error: {code: VpcLimitExceeded, message: no more}}}]";
    let mut child = Serving(sandbox(script).stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap();
    let access = Access { region: REGION.into(), sandbox: Some((url.into(), ACCOUNT.into())), patience: None };
    let aws = Aws::connect(&access, "any", Clock::real()).await.unwrap();
    let vpc = |cidr: &str| aws.ec2.create_vpc().cidr_block(cidr).send();
    vpc("10.0.0.0/16").await.unwrap();
    let refused = vpc("10.1.0.0/16").await.unwrap_err();
    assert!(format!("{refused:?}").contains("VpcLimitExceeded"), "{refused:?}");
    vpc("10.2.0.0/16").await.unwrap();
    assert_eq!(aws.ec2.describe_vpcs().send().await.unwrap().vpcs().len(), 2);
}

#[test]
fn an_invalid_script_is_refused() {
    for (script, said) in
        [("faults: [{call: x}]", "needs one of"), ("{", "isn't a valid fault script"), ("lag: {s3: 1}", "s3")]
    {
        let output = sandbox(script).output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{script}: {err}");
        assert!(err.contains(said) && err.contains("docs/faults.md"), "{script}: {err}");
    }
    let missing =
        Command::new(env!("CARGO_BIN_EXE_ringfence")).args(["sandbox", "--faults", "/none"]).output().unwrap();
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/none can't be read"));
}
