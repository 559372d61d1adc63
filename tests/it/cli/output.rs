//! Documents go to stdout, everything else goes to stderr.

use super::*;

#[test]
fn a_plan_in_json_is_one_document() {
    let estate = Estate::new(&SINGLE_SILO);
    let run = estate.run(&["plan", "--format", "json"]).exits(0);
    assert_eq!(run.lines().len(), 1);
    assert!(run.err.starts_with("Reading the existing resources in 123456789012/eu-central-1"), "{}", run.err);
    let human = estate.run(&["plan"]).exits(0);
    assert!(!human.out.contains("Reading") && human.err.contains("Reading"), "progress goes to stderr");
    assert!(!human.out.contains('\u{1b}') && !human.err.contains('\u{1b}'), "no colours without a terminal");
}

#[test]
fn a_run_in_json_is_lines_from_plan_to_report() {
    let estate = Estate::applied(&SINGLE_SILO);
    estate.edit("max: 3", "max: 4");
    let run = estate.run(&["apply", "--auto-approve", "--format", "json"]).exits(0);
    let lines = run.lines();
    let types: Vec<&str> = lines.iter().map(|l| text(&l["type"])).collect();
    assert_eq!((types.first(), types.last()), (Some(&"plan"), Some(&"report")));
    for one in ["begin", "start", "done", "end"] {
        assert_eq!(types.iter().filter(|t| **t == one).count(), 1, "{one} in {types:?}");
    }
    let report = lines.last().unwrap();
    assert_eq!(report["schema"], "ringfence.dev/apply/v1");
    assert_eq!((&report["complete"], &report["summary"]["change"]), (&Value::from(true), &Value::from(1)));
    assert!(run.err.contains("tenant/globex/silo/node-group"), "{}", run.err);
}

#[test]
fn a_failure_in_json_is_a_document_too() {
    let estate = Estate::new(&SINGLE_SILO);
    let run = estate.run(&["plan", "--format", "json", "--tenant", "nobody"]).exits(1);
    let failure = run.json();
    assert_eq!(failure["schema"], "ringfence.dev/error/v1");
    assert!(text(&failure["errors"][0]["message"]).contains("nobody"), "{failure}");

    estate.edit("natGateways: single", "natGateway: single");
    let run = estate.run(&["validate", "--format", "json"]).exits(1);
    assert_eq!(run.json()["errors"][0]["at"]["line"], 13);
}

#[test]
fn verbose_counts_the_calls() {
    let estate = Estate::new(&SINGLE_SILO);
    let run = estate.run(&["plan", "-v"]).exits(0);
    assert!(run.err.contains("ec2:DescribeVpcs") && !run.out.contains("ec2:DescribeVpcs"), "{}", run.err);
    let plan = estate.run(&["plan", "-v", "--format", "json"]).exits(0).json();
    assert_eq!(plan["calls"]["sts:GetCallerIdentity"], 1);
}

/// As in `ringfence … | head -1`.
#[test]
fn a_closed_pipe_is_not_an_error() {
    let estate = Estate::new(&POOL_OF_TWENTY);
    for format in ["human", "json"] {
        let mut command = estate.command(&["plan", "-v", "--format", format]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && !said.contains("panicked"), "{:?}: {said}", output.status);
    }
}

#[test]
fn without_a_terminal_and_a_confirmation_nothing_is_done() {
    let estate = Estate::applied(&SINGLE_SILO);
    estate.edit("max: 3", "max: 4");
    let before = estate.holds();
    for command in ["apply", "destroy"] {
        let run = estate.run(&[command]).refuses(&["no terminal", "--auto-approve"]);
        assert!(run.out.contains("Plan: "), "the plan is shown all the same: {}", run.out);
    }
    assert_eq!(estate.holds(), before);
}

#[test]
fn a_full_disk_below_stdout_is_an_error() {
    let estate = Estate::applied(&SINGLE_SILO);
    estate.edit("max: 3", "max: 4");
    let before = estate.holds();
    for args in [&["plan"][..], &["plan", "--format", "json"], &["apply", "--auto-approve"], &["schema"]] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = estate.command(args).stdout(full).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        assert!(!said.contains("panicked"), "{args:?}: {said}");
        // With JSON the error would go to stdout, which is closed.
        assert!(args.contains(&"json") || said.contains("the output can't be written"), "{args:?}: {said}");
    }
    assert_eq!(estate.holds(), before, "what can't be shown isn't done");
}
