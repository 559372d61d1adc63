//! No output, log, plan or error contains a credential, even if a server repeats it.

use super::bad_days::{in_front, response, serve};
use super::*;

const SECRET: &str = "wJalrXUtnSECRETKEYSECRETKEYSECRETKEYKEY7";
const SESSION: &str = "IQoJb3JpZ2luSESSIONTOKEN+SESSION/TOKEN==";
const PASSWORD: &str = "pr0xy-PASSWORD-pr0xy";
const LOGIN: &str = "KUBECONFIG-TOKEN-abcdef-0123456789";

#[track_caller]
fn hides(run: &Run, what: &str) {
    for text in [&run.out, &run.err] {
        for secret in [SECRET, SESSION, PASSWORD, LOGIN] {
            assert!(!text.contains(secret), "{what} shows {secret}: {text}");
            assert!(!text.contains(&secret[..16]), "{what} shows half of {secret}: {text}");
        }
        // A signature is as secret as a key: whoever has it can send the signed request again.
        for begins in ["Signature=", "k8s-aws-v1."] {
            for rest in text.split(begins).skip(1) {
                assert!(rest.starts_with("(hidden)"), "{what} shows {begins}{rest}");
            }
        }
    }
}

fn with_secrets<'c>(url: &str, command: &'c mut Command) -> &'c mut Command {
    command
        .env("AWS_ENDPOINT_URL", url)
        .env("AWS_ACCESS_KEY_ID", "123456789012")
        .env("AWS_SECRET_ACCESS_KEY", SECRET)
        .env("AWS_SESSION_TOKEN", SESSION)
        .env("NO_PROXY", "127.0.0.1")
        .env("HTTPS_PROXY", format!("http://me:{PASSWORD}@127.0.0.1:9"))
}

fn kubeconfig(estate: &Estate, server: &str) {
    let text = format!(
        "{{apiVersion: v1, kind: Config, current-context: c, contexts: [{{name: c, context: {{cluster: c, user: u}}}}],\n \
         clusters: [{{name: c, cluster: {{server: '{server}'}}}}], users: [{{name: u, user: {{token: {LOGIN}}}}}]}}\n"
    );
    fs::write(estate.path().join("k"), text).unwrap();
}

const COMMANDS: [&[&str]; 6] = [
    &["plan", "--out", "p"],
    &["apply", "--auto-approve"],
    &["destroy", "--auto-approve"],
    &["drift"],
    &["output"],
    &["unlock"],
];

/// Status, headers, and a function that puts the request's text into the body.
type Shape = (&'static str, &'static str, fn(&str) -> String);

/// A server that repeats the request's headers: as an error of each protocol, as a web page, as invalid text.
#[test]
fn a_server_that_repeats_what_it_was_sent() {
    let estate = Estate::new(&SINGLE_SILO);
    let xml = "Content-Type: text/xml\r\n";
    let shapes: [Shape; 4] = [
        ("403 Forbidden", xml, |said| {
            format!(
                "<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code><Message>{said}</Message></Error></ErrorResponse>"
            )
        }),
        ("403 Forbidden", xml, |said| {
            format!("<ErrorResponse><Error><Code>{said}</Code><Message>no</Message></Error></ErrorResponse>")
        }),
        ("403 Forbidden", "Content-Type: text/html\r\n", |said| format!("<html>{said}</html>")),
        ("200 OK", xml, |said| format!("<br>{said}")),
    ];
    for (n, (status, headers, body)) in shapes.into_iter().enumerate() {
        let url = serve(move |asked| {
            let said =
                asked.head.lines().filter(|l| l.to_lowercase().starts_with("x-amz-security-token")).collect::<String>();
            let authorization: String =
                asked.head.lines().filter(|l| l.to_lowercase().starts_with("authorization")).collect();
            response(status, headers, &body(&format!("{said} {authorization}")))
        });
        for args in COMMANDS {
            let formats: &[&str] = if args[0] == "plan" { &["human", "json", "markdown"] } else { &["human"] };
            for (format, verbose) in formats.iter().flat_map(|f| [(f, "-v"), (f, "-vv")]) {
                // An answer that can't be read is requested again for some seconds, so not all combinations are tried.
                if n == 3 && (args[0] != "plan" || verbose == "-v" || *format != "human") {
                    continue;
                }
                let mut command = estate.bare(&[args, &["--format", format, verbose]].concat());
                let run = Run::of(with_secrets(&url, &mut command));
                hides(&run, &format!("{args:?} --format {format} {verbose} on shape {n}"));
                let run = run.exits(1);
                assert!(format!("{}{}", run.out, run.err).contains("sts:GetCallerIdentity"), "{}", run.err);
            }
        }
    }
}

/// The most verbose logs of all libraries, for a run that reads everything and for a run that is refused.
#[test]
fn logs_and_plans() {
    let estate = Estate::applied(&SINGLE_SILO);
    let served = Served::start(&estate, None);
    kubeconfig(&estate, "http://127.0.0.1:9");
    let (refusing, asked_for) = in_front(
        served.server.addr(),
        "Action=DescribeNatGateways",
        response("403 Forbidden", "Content-Type: text/html\r\n", &format!("<html>{SESSION}</html>")),
    );
    for url in [served.url(), refusing] {
        for args in
            [&["plan", "--out", "p", "--kubeconfig", "globex=k"][..], &["plan", "--out", "p"], &["drift"], &["output"]]
        {
            let mut command = estate.bare(&[args, &["-vv"]].concat());
            let run = Run::of(with_secrets(&url, &mut command).env("RUST_LOG", "trace"));
            hides(&run, &format!("{args:?}"));
            assert!(run.err.contains("TRACE"), "it logs: {}", run.err);
        }
    }
    assert!(asked_for.load(std::sync::atomic::Ordering::Relaxed));
    let plan = String::from_utf8_lossy(&fs::read(estate.path().join("p")).unwrap()).into_owned();
    for secret in [SECRET, SESSION, PASSWORD, LOGIN, "k8s-aws-v1.", "Signature="] {
        assert!(!plan.contains(secret), "the plan holds {secret}");
    }
}

/// Credentials of a `credential_process`, in the server's answer and in the logs.
#[test]
fn what_a_credential_process_tells() {
    let estate = Estate::new(&SINGLE_SILO);
    let told = format!(
        r#"{{"Version":1,"AccessKeyId":"123456789012","SecretAccessKey":"{SECRET}","SessionToken":"{SESSION}"}}"#
    );
    fs::write(estate.path().join("told"), told).unwrap();
    let process = format!("[default]\ncredential_process = /bin/cat {}\n", estate.path().join("told").display());
    let profile = format!(
        "[default]\naws_access_key_id = 123456789012\naws_secret_access_key = {SECRET}\naws_session_token = {SESSION}\n"
    );
    for (n, config) in [process, profile].into_iter().enumerate() {
        fs::write(estate.path().join("config"), config).unwrap();
        let url = serve(|asked| {
            let token: String =
                asked.head.lines().filter(|l| l.to_lowercase().starts_with("x-amz-security-token")).collect();
            assert!(token.contains(SESSION), "it is sent: {}", asked.head);
            let error = format!(
                "<ErrorResponse><Error><Code>AccessDenied</Code><Message>{token} {SECRET}</Message></Error></ErrorResponse>"
            );
            response("403 Forbidden", "Content-Type: text/xml\r\n", &error)
        });
        let mut command = estate.bare(&["plan", "-vv"]);
        command.env("AWS_ENDPOINT_URL", url).env("RUST_LOG", "trace").env("PATH", "/usr/bin:/bin");
        let file = if n == 0 { "AWS_CONFIG_FILE" } else { "AWS_SHARED_CREDENTIALS_FILE" };
        let run = Run::of(command.env(file, estate.path().join("config")));
        hides(&run, file);
        run.refuses(&["(hidden)"]);
    }
}

/// An API server that repeats the token.
#[test]
fn a_cluster_that_repeats_what_it_was_sent() {
    let estate = Estate::applied(&SINGLE_SILO);
    let served = Served::start(&estate, None);
    for kind in ["Status", "Page"] {
        let url = serve(move |asked| {
            let said: String = asked.head.lines().filter(|l| l.to_lowercase().starts_with("authorization")).collect();
            assert!(said.contains(LOGIN), "it is sent: {}", asked.head);
            let body = format!(r#"{{"kind":"{kind}","reason":"Forbidden","message":"{said} may not"}}"#);
            response("403 Forbidden", "Content-Type: application/json\r\n", &body)
        });
        kubeconfig(&estate, &url);
        for format in ["human", "json", "markdown"] {
            let args = ["plan", "--kubeconfig", "globex=k", "--format", format, "-vv"];
            let run = Run::of(with_secrets(&served.url(), &mut estate.bare(&args)));
            hides(&run, &format!("{kind} as {format}"));
            assert!(format!("{}{}", run.out, run.err).contains("(hidden)"), "{} {}", run.out, run.err);
        }
    }
}
