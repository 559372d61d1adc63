//! Imports go one way. The table below says what each module may import. The
//! order of modules in `lib.rs` follows it.

use std::fs;
use std::path::{Path, PathBuf};

use ringfence::engine::clock::Clock;
use ringfence::engine::observe::Observed;
use ringfence::engine::plan::{Policy, plan};
use ringfence::kinds;
use ringfence::spec::{self, LoadOptions};
use ringfence::stack::{self, Facts};
use ringfence::template::Templates;

/// Each module and what it may import.
const LAYERS: &[(&str, &[&str])] = &[
    ("files", &[]),
    ("engine", &[]),
    ("arn", &[]),
    ("version", &[]),
    ("aws", &["engine", "arn"]),
    ("k8s", &["engine", "aws"]),
    ("kinds", &["engine", "arn", "version", "aws", "k8s"]),
    ("spec", &["files", "engine", "arn", "version"]),
    ("template", &["files", "engine"]),
    ("stack", &["engine", "version", "aws", "kinds", "spec", "template"]),
    ("sandbox", &["files"]),
    ("run", &["files", "engine", "aws", "k8s", "kinds", "spec", "template", "stack", "sandbox"]),
    // What it renders: of `run` the failures alone.
    ("ui", &["engine", "spec", "run"]),
];

/// The Rust files of a module: those of its directory, or its one file.
fn sources(module: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(module) else { return vec![module.with_extension("rs")] };
    let mut files = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}

/// The modules that a file names after `crate::`, each with its line. For
/// `crate::{a::b, c}`, both `a` and `c`.
fn imports(text: &str) -> Vec<(usize, String)> {
    let code: Vec<&str> = text.lines().map(|l| l.split("//").next().unwrap_or_default()).collect();
    let code = code.join("\n");
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let line = 1 + code[..at].matches('\n').count();
        let rest = &code[at + "crate::".len()..];
        let (mut depth, mut names) = (0, vec![String::new()]);
        for c in rest.chars() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => names.push(String::new()),
                // Deeper names belong to the last module.
                _ if depth <= 1 && !c.is_whitespace() => names.last_mut().expect("one").push(c),
                _ => {}
            }
            if depth == 0 && !(c.is_alphanumeric() || c == '_') {
                break;
            }
        }
        let first = |name: &String| name.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().map(str::to_owned);
        found.extend(names.iter().filter_map(first).filter(|n| !n.is_empty()).map(|name| (line, name)));
    }
    found
}

#[test]
fn every_way_to_import_is_seen() {
    let text =
        "use crate::{\n    a::{self, x},\n    b,\n};\n// crate::c\nuse crate::d::{e, f};\nlet x = crate::g::h();\n";
    let names = [(1, "a"), (1, "b"), (6, "d"), (7, "g")];
    assert_eq!(imports(text), names.map(|(line, name)| (line, name.to_owned())));
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

#[test]
fn every_module_imports_only_what_stands_above_it() {
    let modules: Vec<&str> = LAYERS.iter().map(|(name, _)| *name).chain(["cli"]).collect();
    let mut wrong = Vec::new();
    for (layer, allowed) in LAYERS {
        for file in sources(&src().join(layer)) {
            let text = fs::read_to_string(&file).expect("a source file");
            for (line, module) in imports(&text) {
                let known = module == *layer || allowed.contains(&module.as_str());
                if !known && modules.contains(&module.as_str()) {
                    wrong.push(format!("{}:{line}: {layer} imports {module}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_module_stands_in_the_table() {
    for entry in fs::read_dir(src()).expect("src").flatten().filter(|e| e.path().is_dir()) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let known = name == "cli" || LAYERS.iter().any(|(layer, _)| *layer == name);
        assert!(known, "src/{name} is in no layer: add it to the table and to lib.rs");
    }
}

/// What the engine must know of AWS and Kubernetes, it asks the kinds.
#[test]
fn the_engine_names_no_kind_of_aws() {
    for file in sources(&src().join("engine")) {
        let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if ["tests.rs", "timing.rs"].contains(&name.as_str()) {
            continue;
        }
        let text = fs::read_to_string(&file).expect("a source file");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for what in ["\"aws.", "\"k8s.", "ringfence.dev/", "aws_sdk"] {
            assert_eq!(code.lines().find(|line| line.contains(what)), None, "{}: {what}", file.display());
        }
    }
}

/// The application layer is called by more than a command line.
#[test]
fn run_prints_nothing_and_ends_no_process() {
    for file in sources(&src().join("run")) {
        let text = fs::read_to_string(&file).expect("a source file");
        let code = text.lines().map(str::trim_start).filter(|line| !line.starts_with("//"));
        let code: Vec<&str> = code.map(|line| line.trim_start_matches("pub ")).collect();
        for what in
            ["print!", "println!", "stdout", "stderr", "process::", "std::env", "thread_local", "LazyLock", "OnceLock"]
        {
            let said = code.iter().find(|line| line.contains(what) || line.starts_with("static "));
            assert_eq!(said, None, "{}: {what}", file.display());
        }
    }
}

#[test]
fn the_aws_sdk_is_named_in_two_places_only() {
    for file in sources(&src()) {
        let place = file.strip_prefix(src()).expect("under src");
        if place.starts_with("aws") || place.starts_with("kinds/aws") {
            continue;
        }
        let text = fs::read_to_string(&file).expect("a source file");
        assert!(!text.contains("aws_sdk_"), "{} names an AWS SDK crate", file.display());
    }
}

/// Whoever decides or shows has facts of kinds alone; whoever reads or carries
/// out has their calls.
#[test]
fn planner_and_interface_have_no_clients() {
    for file in ["engine/plan", "engine/lint", "engine/drift", "engine/graph", "engine/diff", "stack", "ui"] {
        for source in sources(&src().join(file)) {
            let text = fs::read_to_string(&source).expect("a source file");
            let calls = ["Handlers", "Connected"].into_iter().find(|word| text.contains(word));
            assert_eq!(calls, None, "{} has more than facts", source.display());
        }
    }
}

#[test]
fn planning_needs_no_client() {
    let text = include_str!("../../examples/three-tiers/tenancy.yaml");
    let options = LoadOptions { profiles_dir: None, today: Clock::today() };
    let spec = spec::load(Path::new("tenancy.yaml"), text, &options).expect("a spec");
    let desired = stack::build(&spec, &Facts::assumed(&spec), &Templates::load(None).expect("templates"));
    let desired = desired.expect("what should exist");
    let kinds = kinds::facts();
    let plan = plan(&desired, &Observed::default(), &kinds, &Policy::default()).expect("a plan");
    assert!(plan.blocked.is_empty(), "{:?}", plan.blocked);
    assert_eq!(plan.summary().add, desired.len());
}

/// A new kind is one file and one line.
#[test]
fn every_kind_is_a_file_and_a_line() {
    let list = fs::read_to_string(src().join("kinds/mod.rs")).expect("the list of kinds");
    let mut kinds = 0;
    for file in sources(&src().join("kinds")) {
        let text = fs::read_to_string(&file).expect("a source file");
        for name in text.lines().filter_map(|line| line.strip_prefix("impl Kind for ")?.strip_suffix(" {")) {
            assert!(text.contains(&format!("pub struct {name};\n")), "{}: {name} holds something", file.display());
            assert!(list.contains(&format!("::{name}),\n")), "{}: {name} isn't in kinds::all", file.display());
            kinds += 1;
        }
    }
    assert_eq!(kinds::facts().iter().count(), kinds);
}
