//! Two runs at once on one tenancy: one works, the other says who does.

use std::io::Read;
use std::process::Child;

use super::*;

const PATH: &str = "/ringfence/sole/eu-central-1/lock";
const LEASE: [&str; 2] = ["--lock-lease", "4s"];

/// The program's clock is the wall's here: what AWS takes its time for must
/// not take a person's.
fn serve(estate: &Estate) -> Served {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let text = estate.example.text();
    let words = text.split([' ', '\n', '[', ']', ',', '"']);
    let principals = words.filter(|w| w.starts_with("arn:") && w.contains(":role/")).map(str::to_owned).collect();
    let server = {
        let _inside = runtime.enter();
        let options = Options { speed: 1000.0, principals, ..Options::default() };
        Server::start(options, ([127, 0, 0, 1], 0).into()).unwrap()
    };
    let Example { region, account, .. } = estate.example;
    Served { runtime, server, region, account }
}

/// A run in the background, against `served`; killed when the test ends.
struct Background(Child);

impl Background {
    fn start(served: &Served, estate: &Estate, args: &[&str]) -> Self {
        let mut command = estate.bare(args);
        command
            .env("AWS_ENDPOINT_URL", served.url())
            .env("AWS_ACCESS_KEY_ID", "123456789012")
            .env("AWS_SECRET_ACCESS_KEY", "x")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    /// Applies, and has begun to write.
    fn applying(served: &Served, estate: &Estate) -> Self {
        let mut run = Self::start(served, estate, &[&["apply", "--auto-approve"], &LEASE[..]].concat());
        until(|| {
            assert_eq!(run.0.try_wait().unwrap(), None, "it ended already");
            served.server.counts().contains_key(&("eks".to_owned(), "CreateCluster".to_owned()))
        });
        run
    }

    fn ends(mut self) -> Run {
        let mut text = [String::new(), String::new()];
        self.0.stdout.take().unwrap().read_to_string(&mut text[0]).unwrap();
        self.0.stderr.take().unwrap().read_to_string(&mut text[1]).unwrap();
        let code = self.0.wait().unwrap().code();
        let [out, err] = text;
        Run { code, out, err }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        std::thread::yield_now();
    }
}

fn run(served: &Served, estate: &Estate, args: &[&str]) -> Run {
    against(&served.url(), &mut estate.bare(args))
}

/// Generations, and whether they are released.
fn locks(served: &Served) -> Vec<(String, bool)> {
    let dump = served.server.dump();
    let all = &dump["123456789012"]["regions"]["eu-central-1"]["ssm"]["parameters"];
    let of = |p: &Value| text(list(&p["values"]).last().unwrap()).contains("\"released\":true");
    all.as_object().into_iter().flatten().map(|(name, p)| (name.replace(PATH, ""), of(p))).collect()
}

fn ssm(served: &Served) -> aws_sdk_ssm::Client {
    aws_sdk_ssm::Client::new(&served.aws().config)
}

/// The spec of one silo, named as in [`PATH`].
fn estate() -> Estate {
    let estate = Estate::new(&SINGLE_SILO);
    let text = estate.example.text();
    let name = text.split_once("metadata:").and_then(|(_, rest)| rest.split_once("name: ")).unwrap().1;
    let name = name.lines().next().unwrap().trim_end_matches('}').trim();
    estate.write(&text.replacen(&format!("name: {name}"), "name: sole", 1));
    estate
}

#[test]
fn a_second_run_is_refused_waits_or_finds_the_lock_released() {
    let estate = estate();
    let served = serve(&estate);
    let first = Background::applying(&served, &estate);
    let process = format!("process {}", first.0.id());
    run(&served, &estate, &["apply", "--auto-approve"]).refuses(&[
        "the lock of sole in eu-central-1 is held by `apply` on",
        &process,
        "nothing was changed",
        "--lock-timeout",
    ]);
    // Planning needs no lock.
    run(&served, &estate, &["plan"]).exits(0);
    let waited = Background::start(&served, &estate, &["apply", "--auto-approve", "--lock-timeout", "10m"]);
    let first = first.ends().exits(0);
    assert!(first.out.contains("Apply complete"), "{}", first.out);
    let waited = waited.ends().exits(0);
    assert!(waited.out.contains("No changes"), "{}{}", waited.out, waited.err);
    assert_eq!(locks(&served), [("/2".to_owned(), true)]);
    run(&served, &estate, &["unlock", "--auto-approve"]).refuses(&["nobody holds the lock"]);
    run(&served, &estate, &["destroy", "--auto-approve", "--delete-logs"]).exits(0);
    assert_eq!(locks(&served), []);
}

#[test]
fn a_killed_holder_is_followed_after_its_lease() {
    let estate = estate();
    let served = serve(&estate);
    let mut first = Background::applying(&served, &estate);
    first.0.kill().unwrap();
    first.0.wait().unwrap();
    assert_eq!(locks(&served), [("/1".to_owned(), false)]);
    let next = run(&served, &estate, &["apply", "--auto-approve"]).exits(0);
    let said = next.err.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("hasn't been heard of for 3s of 4s"), "{said}");
    assert_eq!(locks(&served), [("/2".to_owned(), true)]);
}

#[test]
fn a_holder_that_lost_the_lock_stops_before_its_next_write() {
    let estate = estate();
    let served = serve(&estate);
    let holder = Background::applying(&served, &estate);
    run(&served, &estate, &["unlock"]).refuses(&["nobody can be asked", "--auto-approve"]);
    let unlocked = run(&served, &estate, &["unlock", "--auto-approve"]).exits(0);
    assert!(unlocked.err.contains("is held by"), "{}", unlocked.err);
    let holder = holder.ends().refuses(&["the lock was released by `unlock` on", "nothing new was started"]);
    assert!(holder.out.contains("Not started"), "{}", holder.out);
    assert_eq!(locks(&served), [("/2".to_owned(), true)]);
    assert!(!served.server.counts().contains_key(&("eks".to_owned(), "CreateNodegroup".to_owned())));

    // Its parameter is deleted by hand.
    let client = ssm(&served);
    let holder = Background::start(&served, &estate, &[&["destroy", "--auto-approve"], &LEASE[..]].concat());
    until(|| served.server.counts().contains_key(&("eks".to_owned(), "DeleteCluster".to_owned())));
    let delete = client.delete_parameter().name(format!("{PATH}/3"));
    served.runtime.block_on(delete.send()).unwrap();
    holder.ends().refuses(&["lock/3 was deleted"]);
}
