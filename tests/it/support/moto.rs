//! moto, started once for all tests of a run.
//!
//! Its Python is `RINGFENCE_TEST_PYTHON`, if that is set; else a virtual
//! environment under `target/` that the first test fills.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

const PACKAGES: [&str; 2] = ["moto[server]==5.2.5", "boto3==1.44.5"];

/// Serves on a port that the system chooses, and prints the port. It ends when
/// its standard input closes, which happens when the tests' process ends in any
/// way.
const SERVE: &str = r#"
import os, sys
os.environ["MOTO_IAM_LOAD_MANAGED_POLICIES"] = "true"
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
os._exit(0)
"#;

static SERVER: LazyLock<(String, Child)> = LazyLock::new(|| {
    let mut child = Command::new(python())
        .args(["-c", SERVE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("moto starts");
    let mut port = String::new();
    let stdout = child.stdout.take().expect("its output is piped");
    BufReader::new(stdout).read_line(&mut port).expect("moto says its port");
    let port: u16 = port.trim().parse().expect("moto is installed in this Python, and says its port");
    (format!("http://127.0.0.1:{port}"), child)
});

/// The URL of moto.
pub fn url() -> &'static str {
    &SERVER.0
}

pub fn python() -> PathBuf {
    match std::env::var_os("RINGFENCE_TEST_PYTHON") {
        Some(path) => path.into(),
        None => environment(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("python")),
    }
}

/// The virtual environment at `home`. Creates it if it isn't complete.
fn environment(home: &Path) -> PathBuf {
    let python = home.join("bin/python");
    let complete = home.join("complete");
    std::fs::create_dir_all(home).expect("target/ can be written");
    let lock = File::create(home.join("lock")).expect("target/ can be written");
    lock.lock().expect("two runs of the tests take turns");
    let packages = PACKAGES.join("\n");
    if std::fs::read_to_string(&complete).is_ok_and(|has| has == packages) {
        return python;
    }
    let run = |command: &mut Command| {
        let output = command.output().expect("python3 3.10 or later is installed");
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    run(Command::new("python3").args(["-m", "venv"]).arg(home));
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PACKAGES));
    std::fs::write(&complete, packages).expect("target/ can be written");
    python
}
