//! Invalid command lines have an exit code of their own, and an error document
//! if a machine format was requested.

use super::*;

fn run(args: &[&str]) -> Run {
    let estate = Estate::new(&SINGLE_SILO);
    Run::of(&mut estate.bare(args))
}

const WRONG: [&[&str]; 8] = [
    &["plna"],
    &["plan", "--no-such-flag"],
    &["apply", "--parallelism", "0"],
    &["apply", "p", "--tenant", "globex"],
    &["plan", "--with-deps"],
    &["kubeconfig", "--use"],
    &["sandbox", "--listen", "0.0.0.0:4599"],
    &["sandbox", "--check", "somewhere"],
];

#[test]
fn they_exit_with_a_code_of_their_own() {
    for args in WRONG {
        let run = run(args).exits(64);
        assert!(run.out.is_empty() && run.err.contains("error: "), "{args:?}: {run:?}");
    }
    run(&[]).exits(64);
    let run = run(&["plan", "--format", "xml"]).exits(64);
    assert!(run.err.contains("possible values"), "{run:?}");
}

#[test]
fn durations() {
    let with = |length| run(&["apply", "-f", "missing.yaml", &format!("--lock-timeout={length}")]);
    for length in ["0s", "90s", "5m", "1h", "1h 30m", "500ms"] {
        assert!(with(length).exits(1).err.contains("missing.yaml"), "{length}");
    }
    for length in ["", "90", "m", "-5s", "1x", "5m ago", "1d", "99999999999999999999s"] {
        let run = with(length).exits(64);
        assert!(run.err.contains("write it as 90s, 5m or 1h"), "{length}: {run:?}");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for args in [&["--help"][..], &["--version"], &["plan", "--help"], &["help", "apply"], &["--format", "json", "-h"]]
    {
        let run = run(args).exits(0);
        assert!(!run.out.is_empty() && run.err.is_empty(), "{args:?}: {run:?}");
    }
}

#[test]
fn they_are_documents_for_machines() {
    for args in WRONG {
        for json in [&["--format", "json"][..], &["--format=json"]] {
            let run = run(&[args, json].concat()).exits(64);
            let document = run.json();
            assert_eq!((text(&document["schema"]), text(&document["type"])), ("ringfence.dev/error/v1", "error"));
            let [error] = list(&document["errors"]) else { panic!("{document:#}") };
            assert_eq!(error["class"], "usage", "{args:?}");
            assert!(!text(&error["message"]).is_empty() && !text(&error["message"]).contains('\u{1b}'), "{error}");
        }
        let run = |format| run(&[&["--format", format], args].concat()).exits(64);
        let (markdown, html) = (run("markdown"), run("html"));
        assert!(markdown.out.starts_with("```text\nerror: "), "{args:?}: {}", markdown.out);
        assert!(html.out.starts_with("<!doctype html>") && html.out.contains("error: "), "{args:?}: {}", html.out);
    }
    let document = run(&["plan", "--format", "json", "--no-such-flag"]).json();
    assert_eq!(document["errors"][0]["message"], "unexpected argument '--no-such-flag' found");
    assert!(text(&document["errors"][0]["help"]).contains("Usage: ringfence plan"), "{document:#}");
    // Text after `--` is a file name, not an option.
    assert!(run(&["apply", "a", "b", "--", "--format=json"]).exits(64).out.is_empty());
}

/// The same for all other failures.
#[test]
fn failures_are_documents_for_machines() {
    let markdown = run(&["plan", "--format", "markdown", "-f", "missing.yaml"]).exits(1);
    assert!(markdown.out.starts_with("```text\n") && markdown.out.contains("missing.yaml"), "{}", markdown.out);
    let html = run(&["plan", "--format", "html", "-f", "missing.yaml"]).exits(1);
    assert!(html.out.starts_with("<!doctype html>") && html.out.contains("missing.yaml"), "{}", html.out);
    let both = [&markdown.err, &html.err];
    assert!(both.iter().all(|said| said.contains("missing.yaml")), "{both:?}");
    let apply = run(&["apply", "--format", "html"]).exits(1);
    assert!(apply.out.starts_with("<!doctype html>"), "{}", apply.out);
}
