//! Failures outside of ringfence: exit code 1, and a message that says what failed, where, and what to do.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// One HTTP request as received: head and body.
pub(super) struct Asked {
    pub(super) head: String,
    body: Vec<u8>,
}

impl Asked {
    fn read(stream: &TcpStream) -> Option<Self> {
        let mut reader = BufReader::new(stream);
        let (mut head, mut body) = (String::new(), Vec::new());
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let length = head.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
        body.resize(length.unwrap_or(0), 0);
        reader.read_exact(&mut body).ok()?;
        Some(Self { head, body })
    }

    pub(super) fn contains(&self, text: &str) -> bool {
        self.head.contains(text) || String::from_utf8_lossy(&self.body).contains(text)
    }

    /// Sends the request to `upstream` and returns the answer.
    pub(super) fn forwarded(&self, upstream: SocketAddr) -> Vec<u8> {
        let mut stream = TcpStream::connect(upstream).unwrap();
        let head = self.head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
        stream.write_all(&[head.as_bytes(), &self.body].concat()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    }
}

/// A server that answers each request separately, until the test process ends.
pub(super) fn serve(answer: impl Fn(Asked) -> Vec<u8> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || {
                if let Some(asked) = Asked::read(&stream) {
                    let _gone = stream.write_all(&answer(asked));
                }
            });
        }
    });
    url
}

pub(super) fn response(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
        .into_bytes()
}

/// A proxy in front of the sandbox at `upstream`. A request that contains `what` gets `refusal`. The flag says whether
/// there was such a request.
pub(super) fn in_front(upstream: SocketAddr, what: &'static str, refusal: Vec<u8>) -> (String, Arc<AtomicBool>) {
    let asked_for = Arc::new(AtomicBool::new(false));
    let refused = asked_for.clone();
    let url = serve(move |asked| {
        if asked.contains(what) {
            refused.store(true, Ordering::Relaxed);
            return refusal.clone();
        }
        asked.forwarded(upstream)
    });
    (url, asked_for)
}

#[test]
fn no_credentials() {
    let estate = Estate::new(&SINGLE_SILO);
    let mut command = estate.bare(&["plan"]);
    Run::of(command.env("AWS_EC2_METADATA_DISABLED", "true")).refuses(&["no AWS credentials", "AWS_PROFILE"]);
}

#[test]
fn the_wrong_account() {
    let estate = Estate::new(&THREE_TIERS);
    estate.edit("\"123456789012\"", "\"999999999999\"");
    let served = Served::start(&estate, None);
    for args in [&["plan"][..], &["apply", "--auto-approve"], &["destroy", "--auto-approve"]] {
        against(&served.url(), &mut estate.bare(args)).refuses(&[
            "the credentials are for account 123456789012, but the spec is for 999999999999",
            "nothing was changed",
            "AWS_PROFILE",
        ]);
    }
    let called: Vec<String> = served.server.counts().into_keys().map(|(_, operation)| operation).collect();
    assert_eq!(called, ["GetCallerIdentity"], "it is refused before anything is read");
}

#[test]
fn the_wrong_partition() {
    let estate = Estate::new(&SINGLE_SILO);
    estate.edit("eu-central-1", "cn-north-1");
    estate.edit("arn:aws:iam", "arn:aws-cn:iam");
    let url = serve(|_| {
        let body = "<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:iam::123456789012:user/me</Arn>\
             <UserId>AIDA</UserId><Account>123456789012</Account></GetCallerIdentityResult></GetCallerIdentityResponse>";
        response("200 OK", "Content-Type: text/xml\r\n", body)
    });
    against(&url, &mut estate.bare(&["plan"])).refuses(&["partition aws", "cn-north-1", "nothing was changed"]);
}

#[test]
fn there_is_no_answer() {
    let estate = Estate::new(&SINGLE_SILO);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let host = url.trim_start_matches("http://").to_owned();
    let run = against(&url, &mut estate.bare(&["plan"]));
    run.refuses(&["unreachable: ", &host, "sts:GetCallerIdentity", "AWS_ENDPOINT_URL"]);
}

#[test]
fn an_html_page_for_an_answer() {
    let estate = Estate::new(&SINGLE_SILO);
    for status in ["200 OK", "403 Forbidden", "503 Service Unavailable"] {
        let page = "<!DOCTYPE html><html><body><h1>Corporate proxy</h1><br></body></html>";
        let url = serve(move |_| response(status, "Content-Type: text/html\r\n", page));
        against(&url, &mut estate.bare(&["plan"])).refuses(&["sts:GetCallerIdentity", "AWS_ENDPOINT_URL"]);
    }
}

/// An HTML page in place of an answer isn't taken for an empty list.
#[test]
fn an_html_page_for_one_answer() {
    let estate = Estate::applied(&SINGLE_SILO);
    let served = Served::start(&estate, None);
    for (what, page) in [
        ("Action=DescribeNatGateways", response("200 OK", "Content-Type: text/html\r\n", "<html><br></html>")),
        ("Action=DescribeVpcs", response("200 OK", "Content-Type: text/html\r\n", "")),
        ("GET /clusters", response("200 OK", "Content-Type: text/html\r\n", "<html><br></html>")),
        (
            "Action=GetAccountAuthorizationDetails",
            response("200 OK", "Content-Type: text/html\r\n", "<html><br></html>"),
        ),
    ] {
        let (url, asked_for) = in_front(served.server.addr(), what, page);
        let run = against(&url, &mut estate.bare(&["plan"]));
        assert!(asked_for.load(Ordering::Relaxed), "{what} isn't read");
        let run = run.exits(1);
        assert!(!run.out.contains(" to add"), "{what}: {}", run.out);
    }
}

/// "Access denied" isn't taken for "absent".
#[test]
fn access_denied_on_one_read() {
    let estate = Estate::applied(&SINGLE_SILO);
    let before = estate.holds();
    {
        let served = Served::start(&estate, None);
        let ec2 = "<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>You are not authorized to perform this operation.</Message></Error></Errors></Response>";
        let iam = "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>User: arn:aws:iam::123456789012:user/ci is not authorized to perform: iam:GetAccountAuthorizationDetails</Message></Error></ErrorResponse>";
        let json = r#"{"message":"User: arn:aws:iam::123456789012:user/ci is not authorized","Message":"User is not authorized","__type":"AccessDeniedException"}"#;
        let xml = "Content-Type: text/xml\r\n";
        let typed = "Content-Type: application/json\r\nx-amzn-ErrorType: AccessDeniedException\r\n";
        for (what, action, refusal) in [
            ("Action=DescribeVpcs", "ec2:DescribeVpcs", response("403 Forbidden", xml, ec2)),
            ("Action=DescribeNatGateways", "ec2:DescribeNatGateways", response("403 Forbidden", xml, ec2)),
            ("Action=DescribeVpcEndpoints", "ec2:DescribeVpcEndpoints", response("403 Forbidden", xml, ec2)),
            (
                "Action=GetAccountAuthorizationDetails",
                "iam:GetAccountAuthorizationDetails",
                response("403 Forbidden", xml, iam),
            ),
            ("GET /clusters", "eks:", response("403 Forbidden", typed, json)),
            ("Logs_20140328.DescribeLogGroups", "logs:DescribeLogGroups", response("400 Bad Request", typed, json)),
            ("TrentService.DescribeKey", "kms:DescribeKey", response("400 Bad Request", typed, json)),
        ] {
            let (url, asked_for) = in_front(served.server.addr(), what, refusal);
            let commands = [&["plan"][..], &["apply", "--auto-approve"], &["destroy", "--auto-approve"]];
            // All commands read in the same way, so one denied call is enough to test the other commands.
            let tried = if what == "Action=DescribeNatGateways" { &commands[..] } else { &commands[..1] };
            for args in tried {
                let run = against(&url, &mut estate.bare(args));
                assert!(asked_for.load(Ordering::Relaxed), "{what} isn't read");
                let run = run.exits(1);
                assert!(!run.out.contains("  + "), "{what}: {args:?} plans creations: {}", run.out);
                let all = format!("{}{}", run.out, run.err);
                assert!(all.contains(action), "{what}: {args:?} doesn't name {action}: {all}");
            }
        }
        for (service, operation) in served.server.counts().keys().filter(|(service, _)| service != "ssm") {
            let reads = ["Describe", "Get", "List"].iter().any(|verb| operation.starts_with(verb));
            assert!(reads, "{service} {operation}");
        }
        let Served { runtime, server, .. } = served;
        runtime.block_on(server.shutdown()).unwrap();
    }
    assert_eq!(estate.holds(), before);
}

#[test]
fn the_plan_cannot_be_saved() {
    let estate = Estate::new(&SINGLE_SILO);
    fs::write(estate.path().join("file"), "in the way").unwrap();
    estate.run(&["plan", "--out", "file/p"]).refuses(&["the plan file/p can't be written"]);
    estate.run(&["plan", "--out", "missing/p"]).refuses(&["the plan missing/p can't be written", "check the path"]);
    estate.run(&["plan", "--out", "sandbox"]).refuses(&["the plan sandbox can't be written"]);
    let left: BTreeSet<String> =
        fs::read_dir(estate.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(left, ["file", "sandbox", "tenancy.yaml"].map(str::to_owned).into(), "nothing half-written is left");
    assert_eq!(fs::read_to_string(estate.path().join("file")).unwrap(), "in the way");
}

/// Runs `command` with a limit for the size of files, in KiB. A write beyond it fails, as on a full disk.
fn within(kib: u32, command: &Command) -> Command {
    let mut shell = Command::new("bash");
    shell.args(["-c", &format!("trap '' XFSZ; ulimit -f {kib}; exec \"$@\""), "bash"]);
    shell.arg(command.get_program()).args(command.get_args()).current_dir(command.get_current_dir().unwrap());
    shell.env_clear().envs(command.get_envs().filter_map(|(k, v)| Some((k, v?)))).stdin(Stdio::null());
    shell
}

#[track_caller]
fn holds_only(dir: &Path, names: &[&str]) {
    let left: BTreeSet<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(left, names.iter().map(|n| (*n).to_owned()).collect(), "in {}", dir.display());
}

#[test]
fn no_space_for_the_plan() {
    let estate = Estate::new(&SINGLE_SILO);
    estate.run(&["plan", "--out", "p"]).exits(0);
    let former = fs::read(estate.path().join("p")).unwrap();
    estate.edit("max: 3", "max: 4");
    let says = ["the plan p can't be written", "free some space", "no incomplete file is left behind"];
    let unharmed = || {
        assert_eq!(fs::read(estate.path().join("p")).unwrap(), former);
        holds_only(estate.path(), &["p", "sandbox", "tenancy.yaml"]);
    };

    // The served sandbox writes its state in another process, without the limit.
    let served = Served::start(&estate, None);
    against(&served.url(), &mut within(0, &estate.bare(&["plan", "--out", "p"]))).refuses(&says);
    unharmed();
}

#[test]
fn no_space_for_the_sandbox() {
    let estate = Estate::applied(&SINGLE_SILO);
    let former = fs::read(estate.state()).unwrap();
    let says = ["sandbox/state.json can't be written", "free some space", "--sandbox=DIR"];
    let unharmed = || {
        assert!(fs::read(estate.state()).unwrap() == former, "the state is as it was");
        holds_only(&estate.path().join("sandbox"), &["state.json"]);
    };
    for args in [&["plan"][..], &["apply", "--auto-approve"], &["destroy", "--auto-approve"]] {
        Run::of(&mut within(8, &estate.command(args))).refuses(&says);
        unharmed();
    }
}

#[test]
fn no_space_for_the_state_of_the_sandbox() {
    let estate = Estate::planted(&SINGLE_SILO);
    let has = fs::metadata(estate.state()).unwrap().len();
    let some_more = u32::try_from(has / 1024 + 16).unwrap();
    let mut apply = within(some_more, &estate.command(&["apply", "--auto-approve"]));
    Run::of(&mut apply).refuses(&["can't save its state", "sandbox/state.json can't be written", "Free some space"]);
    holds_only(&estate.path().join("sandbox"), &["state.json"]);
    // With enough space, the next run goes on from the saved state.
    estate.run(&["apply", "--auto-approve"]).exits(0);
    assert_eq!(steps(&estate.plan(&[])), [] as [&str; 0]);
}

/// Changes by hand to a VPC's CIDR blocks and to its main route table are drift. Apply reverts them, and they don't
/// block a destroy.
#[test]
fn a_network_changed_by_hand() {
    let estate = Estate::applied(&SINGLE_SILO);
    estate.sandbox(async |aws, _| {
        let vpc = vpc_of(aws).await;
        aws.ec2.associate_vpc_cidr_block().vpc_id(&vpc).cidr_block("100.64.0.0/16").send().await.unwrap();
        aws.ec2.associate_vpc_cidr_block().vpc_id(&vpc).amazon_provided_ipv6_cidr_block(true).send().await.unwrap();
        make_main(aws, &vpc, &table_of(aws, "tenant/globex/silo/route-table/public").await).await;
    });
    let drift = estate.run(&["drift"]).exits(2).out;
    for shown in ["100.64.0.0/16", "2600:1f18:", "main"] {
        assert!(drift.contains(shown), "{shown}: {drift}");
    }
    assert_eq!(
        steps(&estate.plan(&[])),
        ["update tenant/globex/silo/vpc", "update tenant/globex/silo/route-table/public"]
    );
    estate.run(&["apply", "--auto-approve"]).exits(0);
    assert_eq!(steps(&estate.plan(&[])), [] as [&str; 0]);

    // A route table of somebody else, with a route to our internet gateway.
    let theirs = estate.sandbox(async |aws, _| {
        let vpc = vpc_of(aws).await;
        let ours = aws.ec2.describe_internet_gateways().send().await.unwrap();
        let gateway = ours.internet_gateways().iter().find(|g| g.attachments()[0].vpc_id() == Some(&vpc)).unwrap();
        let made = aws.ec2.create_route_table().vpc_id(&vpc).send().await.unwrap();
        let table = made.route_table().unwrap().route_table_id().unwrap().to_owned();
        let call = aws.ec2.create_route().route_table_id(&table).destination_cidr_block("0.0.0.0/0");
        call.gateway_id(gateway.internet_gateway_id().unwrap()).send().await.unwrap();
        make_main(aws, &vpc, &table).await;
        table
    });
    let plan = estate.plan(&[]);
    assert_eq!(steps(&plan), ["update tenant/globex/silo/vpc"]);
    assert_eq!(plan["steps"][0]["changes"][0]["path"], "main_routes");
    estate.run(&["destroy", "--auto-approve", "--delete-logs"]).refuses(&["still used by", &theirs]);
    estate.sandbox(async |aws, _| {
        aws.ec2.delete_route_table().route_table_id(&theirs).send().await.unwrap();
    });
    estate.run(&["destroy", "--auto-approve", "--delete-logs"]).exits(0);
}

fn of(name: &str, value: &str) -> aws_sdk_ec2::types::Filter {
    aws_sdk_ec2::types::Filter::builder().name(name).values(value).build()
}

pub(super) async fn vpc_of(aws: &Aws) -> String {
    let all = aws.ec2.describe_vpcs().filters(of("tag-key", "ringfence.dev/address")).send().await.unwrap();
    all.vpcs()[0].vpc_id().unwrap().to_owned()
}

pub(super) async fn table_of(aws: &Aws, address: &str) -> String {
    let all = aws.ec2.describe_route_tables().filters(of("tag:ringfence.dev/address", address)).send().await.unwrap();
    all.route_tables()[0].route_table_id().unwrap().to_owned()
}

pub(super) async fn make_main(aws: &Aws, vpc: &str, table: &str) {
    let all = aws.ec2.describe_route_tables().filters(of("vpc-id", vpc)).filters(of("association.main", "true"));
    let all = all.send().await.unwrap();
    let main = all.route_tables()[0].associations().iter().find(|a| a.main() == Some(true)).unwrap();
    let call = aws.ec2.replace_route_table_association().route_table_id(table);
    call.association_id(main.route_table_association_id().unwrap()).send().await.unwrap();
}

#[test]
fn the_sandbox_cannot_be_kept() {
    let estate = Estate::new(&SINGLE_SILO);
    fs::write(estate.path().join("file"), "in the way").unwrap();
    for dir in ["file", "file/below"] {
        let mut command = estate.bare(&["plan"]);
        Run::of(command.arg(format!("--sandbox={dir}"))).refuses(&[dir, "--sandbox=DIR"]);
    }
    fs::write(estate.state(), "{\"accounts\": ").unwrap();
    estate.run(&["plan"]).refuses(&["sandbox/state.json", "move"]);
    assert_eq!(fs::read_to_string(estate.state()).unwrap(), "{\"accounts\": ", "it isn't overwritten");
}

#[test]
fn the_sandbox_is_open_elsewhere() {
    let estate = Estate::new(&SINGLE_SILO);
    let Served { runtime, server, .. } = Served::start(&estate, None);
    let before = fs::read(estate.state()).unwrap();
    let says = "another process has sandbox open as its sandbox";
    for args in [&["plan"][..], &["apply", "--auto-approve"]] {
        estate.run(args).refuses(&[says, "wait until that process ends", "--sandbox=DIR"]);
    }
    let mut serving = estate.bare(&["sandbox", "--listen", "127.0.0.1:0", "--state", "sandbox"]);
    Run::of(&mut serving).refuses(&[says, "choose another port or directory"]);
    assert!(fs::read(estate.state()).unwrap() == before, "it isn't overwritten");
    runtime.block_on(server.shutdown()).unwrap();
    estate.run(&["plan"]).exits(0);

    // A killed process leaves no lock behind.
    let mut serving = estate.bare(&["sandbox", "--listen", "127.0.0.1:0", "--state", "sandbox"]);
    let mut serving = serving.stdout(Stdio::piped()).spawn().unwrap();
    BufReader::new(serving.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
    estate.run(&["plan"]).refuses(&[says]);
    serving.kill().unwrap();
    serving.wait().unwrap();
    estate.run(&["plan"]).exits(0);
    holds_only(&estate.path().join("sandbox"), &["state.json"]);
}

#[test]
fn the_spec_cannot_be_read() {
    let estate = Estate::new(&SINGLE_SILO);
    for args in [&["validate"][..], &["plan"], &["apply", "--auto-approve"], &["render"], &["graph"]] {
        estate.run(&[args, &["-f", "nowhere.yaml"]].concat()).refuses(&["nowhere.yaml"]);
        estate.run(&[args, &["-f", "sandbox"]].concat()).refuses(&["sandbox"]);
    }
    fs::write(estate.spec(), [0xff, 0xfe, 0x00]).unwrap();
    estate.run(&["plan"]).refuses(&["tenancy.yaml", "UTF-8"]);
    fs::write(estate.spec(), "").unwrap();
    estate.run(&["plan"]).refuses(&["tenancy.yaml"]);
    assert!(!estate.state().exists(), "no sandbox is made for a spec that can't be read");
}

#[test]
fn all_errors_of_a_spec_are_shown_at_once() {
    let estate = Estate::new(&THREE_TIERS);
    estate.edit("natGateways:", "natGateway:");
    estate.edit("tier: serverless", "tier: severless");
    estate.edit("id: \"23456\"", "id: \"12345\"");
    for command in ["validate", "plan"] {
        estate.run(&[command]).refuses(&[
            "natGateways",
            "serverless",
            "12345",
            "tenancy.yaml:13:5",
            "3 errors in the spec",
        ]);
    }
}
