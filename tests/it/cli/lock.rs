//! Two runs at the same time on one tenancy: one works, the other names the
//! holder of the lock.

use std::io::Read;
use std::process::Child;

use super::*;

const PATH: &str = "/ringfence/sole/eu-central-1/lock";
pub(super) const LEASE: [&str; 2] = ["--lock-lease", "4s"];

/// The program uses real time here, so the sandbox is fast: a test must not
/// wait as long as for AWS.
pub(super) fn serve(estate: &Estate) -> Served {
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

/// A run in the background against `served`. It is killed when the test ends.
pub(super) struct Background(Child);

impl Background {
    pub(super) fn start(served: &Served, estate: &Estate, args: &[&str]) -> Self {
        Self::spawn(served, estate.bare(args))
    }

    /// Starts the run through another program, such as `nohup`.
    pub(super) fn start_by(program: &str, served: &Served, estate: &Estate, args: &[&str]) -> Self {
        let bare = estate.bare(args);
        let mut command = Command::new(program);
        command.arg(bare.get_program()).args(bare.get_args()).current_dir(estate.path());
        command.env_clear().env("HOME", estate.path()).env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
        Self::spawn(served, command)
    }

    fn spawn(served: &Served, mut command: Command) -> Self {
        command
            .env("AWS_ENDPOINT_URL", served.url())
            .env("AWS_ACCESS_KEY_ID", "123456789012")
            .env("AWS_SECRET_ACCESS_KEY", "x")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    /// An apply that has begun to write.
    pub(super) fn applying(served: &Served, estate: &Estate) -> Self {
        Self::applying_with(served, estate, &LEASE)
    }

    pub(super) fn applying_with(served: &Served, estate: &Estate, args: &[&str]) -> Self {
        let mut run = Self::start(served, estate, &[&["apply", "--auto-approve"], args].concat());
        until(|| {
            assert_eq!(run.0.try_wait().unwrap(), None, "it ended already");
            served.server.counts().contains_key(&("eks".to_owned(), "CreateCluster".to_owned()))
        });
        run
    }

    /// Sends a signal, as `kill -SIGNAL` does.
    pub(super) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([format!("-{signal}"), self.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits until stderr contains `what`.
    pub(super) fn says(&mut self, what: &str) {
        let (mut said, mut byte) = (Vec::new(), [0]);
        let stderr = self.0.stderr.as_mut().unwrap();
        while !String::from_utf8_lossy(&said).contains(what) {
            let read = stderr.read_exact(&mut byte);
            assert!(read.is_ok(), "it ended without {what:?}: {}", String::from_utf8_lossy(&said));
            said.extend(byte);
        }
    }

    pub(super) fn ends(mut self) -> Run {
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

pub(super) fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        std::thread::yield_now();
    }
}

pub(super) fn run(served: &Served, estate: &Estate, args: &[&str]) -> Run {
    against(&served.url(), &mut estate.bare(args))
}

/// The names of the lock's parameters, and whether they are released.
pub(super) fn locks(served: &Served) -> Vec<(String, bool)> {
    let dump = served.server.dump();
    let all = &dump["123456789012"]["regions"]["eu-central-1"]["ssm"]["parameters"];
    let of = |p: &Value| text(list(&p["values"]).last().unwrap()).contains("\"released\":true");
    all.as_object().into_iter().flatten().map(|(name, p)| (name.replace(PATH, ""), of(p))).collect()
}

fn ssm(served: &Served) -> aws_sdk_ssm::Client {
    aws_sdk_ssm::Client::new(&served.aws().config)
}

/// The spec of one silo, with the name in [`PATH`].
pub(super) fn estate() -> Estate {
    named("sole")
}

fn named(tenancy: &str) -> Estate {
    let estate = Estate::new(&SINGLE_SILO);
    let text = estate.example.text();
    let name = text.split_once("metadata:").and_then(|(_, rest)| rest.split_once("name: ")).unwrap().1;
    let name = name.lines().next().unwrap().trim_end_matches('}').trim();
    estate.write(&text.replacen(&format!("name: {name}"), &format!("name: {tenancy}"), 1));
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
    // A plan takes no lock.
    run(&served, &estate, &["plan"]).exits(0);
    let waited = Background::start(&served, &estate, &["apply", "--auto-approve", "--lock-timeout", "10m"]);
    let first = first.ends().exits(0);
    assert!(first.out.contains("Apply complete"), "{}", first.out);
    let waited = waited.ends().exits(0);
    assert!(waited.out.contains("No changes"), "{}{}", waited.out, waited.err);
    assert_eq!(locks(&served), [("/2".to_owned(), true)]);
    run(&served, &estate, &["unlock", "--auto-approve"]).refuses(&["no run holds the lock"]);
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
    assert!(said.contains("sends no heartbeat, and 3 of its lease's 4 s have passed"), "{said}");
    assert_eq!(locks(&served), [("/2".to_owned(), true)]);
}

#[test]
fn a_holder_that_was_paused_stops_before_its_next_write() {
    let estate = estate();
    let served = serve(&estate);
    let holder = Background::applying(&served, &estate);
    holder.signal("STOP");
    let next = run(&served, &estate, &["apply", "--auto-approve"]).exits(0);
    assert!(next.out.contains("Apply complete"), "{}", next.out);
    let before = normal(served.server.dump());
    holder.signal("CONT");
    let holder = holder.ends().refuses(&["the lock ", "no new step was started"]);
    assert!(holder.out.contains("Apply incomplete") && holder.out.contains("Not started"), "{}", holder.out);
    assert!(normal(served.server.dump()) == before, "it wrote all the same");
    assert_eq!(locks(&served), [("/2".to_owned(), true)]);
}

#[test]
fn without_permission_for_the_lock_nothing_is_written() {
    let estate = estate();
    let served = serve(&estate);
    run(&served, &estate, &["plan"]).exits(0);
    let before = served.server.dump();
    for call in ["ssm:*", "ssm:PutParameter"] {
        let denied = "{error: {code: AccessDeniedException, message: no, status: 400}}";
        served.server.set_faults(Script::parse(&format!("faults: [{{call: '{call}', before: {denied}}}]")).unwrap());
        run(&served, &estate, &["apply", "--auto-approve"]).refuses(&[
            "the lock can't be taken, so nothing was changed",
            "AccessDeniedException",
            "ssm:GetParametersByPath, ssm:PutParameter, ssm:AddTagsToResource and ssm:DeleteParameters",
        ]);
        assert!(served.server.dump() == before, "something was written");
    }
}

#[test]
fn two_tenancies_in_one_account_do_not_wait_for_each_other() {
    let (one, other) = (named("sole"), named("other"));
    let served = serve(&one);
    let first = Background::applying_with(&served, &one, &[]);
    // It holds the lock the whole time.
    first.signal("STOP");
    let second = run(&served, &other, &["apply", "--auto-approve"]).exits(0);
    assert!(second.out.contains("Apply complete"), "{}", second.out);
    assert!(!second.err.contains("Waiting for the lock"), "{}", second.err);
    first.signal("CONT");
    let first = first.ends().exits(0);
    assert!(first.out.contains("Apply complete"), "{}", first.out);
    for estate in [&one, &other] {
        run(&served, estate, &["plan", "--detailed-exitcode"]).exits(0);
    }
}

#[test]
fn a_holder_that_lost_the_lock_stops_before_its_next_write() {
    let estate = estate();
    let served = serve(&estate);
    // The answer takes 6 s of real time, in which heartbeats are sent.
    let late = "faults: [{call: 'eks:*Cluster', only: changes, after: {delay: 6000}}]";
    served.server.set_faults(Script::parse(late).unwrap());
    let holder = Background::applying(&served, &estate);
    run(&served, &estate, &["unlock"]).refuses(&["must be confirmed, but there is no terminal", "--auto-approve"]);
    let unlocked = run(&served, &estate, &["unlock", "--auto-approve"]).exits(0);
    assert!(unlocked.err.contains("is held by"), "{}", unlocked.err);
    let holder = holder.ends().refuses(&["the lock was released by `unlock` on", "no new step was started"]);
    assert!(holder.out.contains("Not started"), "{}", holder.out);
    assert_eq!(locks(&served), [("/2".to_owned(), true)]);
    assert!(!served.server.counts().contains_key(&("eks".to_owned(), "CreateNodegroup".to_owned())));

    // Somebody deletes the lock's parameter by hand.
    let client = ssm(&served);
    let holder = Background::start(&served, &estate, &[&["destroy", "--auto-approve"], &LEASE[..]].concat());
    until(|| served.server.counts().contains_key(&("eks".to_owned(), "DeleteCluster".to_owned())));
    let delete = client.delete_parameter().name(format!("{PATH}/3"));
    served.runtime.block_on(delete.send()).unwrap();
    holder.ends().refuses(&["lock/3 was deleted"]);
}

/// An estate whose cluster needs two updates, one after the other, and a run
/// that waits for the first of them.
fn between_two_updates() -> (Estate, Served, Background) {
    let estate = estate();
    let served = serve(&estate);
    run(&served, &estate, &["apply", "--auto-approve"]).exits(0);
    let spec = fs::read_to_string(estate.path().join("tenancy.yaml")).unwrap();
    let mut changed = spec;
    for (from, to) in [
        ("203.0.113.0/24", "198.51.100.0/24"),
        ("overrides:\n", "overrides:\n        cluster: {logTypes: [api, audit, authenticator]}\n"),
    ] {
        assert_eq!(changed.matches(from).count(), 1, "{from}");
        changed = changed.replace(from, to);
    }
    estate.write(&changed);
    // The answer takes 6 s of real time, in which the holder sends heartbeats.
    let late = "faults: [{call: 'eks:DescribeUpdate', nth: 1, after: {delay: 6000}}]";
    served.server.set_faults(Script::parse(late).unwrap());
    let holder = Background::start(&served, &estate, &[&["apply", "--auto-approve"], &LEASE[..]].concat());
    until(|| served.server.struck().0 > 0);
    (estate, served, holder)
}

fn updates(served: &Served) -> u64 {
    served.server.counts().get(&("eks".to_owned(), "UpdateClusterConfig".to_owned())).copied().unwrap_or_default()
}

/// A step may make calls for hours, so the lock is checked before each of them.
#[test]
fn a_step_that_writes_for_long_stops_when_the_lock_is_lost() {
    let (estate, served, holder) = between_two_updates();
    assert_eq!(updates(&served), 1);
    run(&served, &estate, &["unlock", "--auto-approve"]).exits(0);
    let holder = holder.ends().refuses(&["the lock was released by `unlock` on"]);
    assert!(holder.out.contains("silo/cluster: not changed"), "{}", holder.out);
    assert_eq!(updates(&served), 1, "it wrote all the same");
}

#[test]
fn a_step_that_was_paused_between_two_writes_makes_no_other() {
    let (estate, served, holder) = between_two_updates();
    holder.signal("STOP");
    served.server.set_faults(Script::parse("{}").unwrap());
    run(&served, &estate, &["apply", "--auto-approve"]).exits(0);
    let (before, made) = (normal(served.server.dump()), updates(&served));
    holder.signal("CONT");
    holder.ends().refuses(&["the lock "]);
    assert_eq!(updates(&served), made, "it wrote all the same");
    assert!(normal(served.server.dump()) == before, "it wrote all the same");
}
