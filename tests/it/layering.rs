//! Imports go one way. The table below says what each module may import. The
//! order of modules in `lib.rs` follows it.

use std::collections::{BTreeMap, BTreeSet};
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
    ("guard", &["engine"]),
    ("engines", &["engine", "template", "guard"]),
    ("gateway", &["engine", "guard"]),
    (
        "run",
        &[
            "files", "guard", "engines", "gateway", "engine", "arn", "version", "aws", "k8s", "kinds", "spec",
            "template", "stack", "sandbox",
        ],
    ),
    // `ui` renders these. Of `run` it knows only failures and results.
    ("ui", &["engine", "guard", "spec", "template", "run"]),
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

/// The paths that start with `crate::` or `super::`, each with its line. `crate::{a::b, c}` is two paths.
fn paths(text: &str) -> Vec<(usize, Vec<String>)> {
    let code: Vec<&str> = text.lines().map(|l| l.split("//").next().unwrap_or_default()).collect();
    let code = code.join("\n");
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for root in ["crate", "super"] {
        for (at, _) in code.match_indices(&format!("{root}::")) {
            if code[..at].ends_with(|c| c == ':' || is_name(c)) {
                continue;
            }
            let line = 1 + code[..at].matches('\n').count();
            let (mut path, mut braces) = (vec![root.to_owned()], Vec::new());
            let mut rest = &code[at + root.len() + "::".len()..];
            // True after a whole path: up to the next comma or brace comes no other.
            let mut whole = false;
            while let Some(c) = rest.chars().next() {
                let name = rest.split(|c| !is_name(c)).next().unwrap_or_default();
                match c {
                    '{' => braces.push(path.len()),
                    '}' => drop(braces.pop()),
                    ',' => {}
                    _ if !whole && (c == '*' || !name.is_empty()) => {
                        path.push(if c == '*' { "*" } else { name }.to_owned());
                        rest = &rest[name.len().max(1)..];
                        let next =
                            rest.strip_prefix("::").filter(|r| r.starts_with(|c| is_name(c) || "{*".contains(c)));
                        whole = next.is_none();
                        rest = next.unwrap_or(rest);
                        if whole {
                            found.push((line, path.clone()));
                        }
                        if whole && braces.is_empty() {
                            break;
                        }
                        continue;
                    }
                    _ => {}
                }
                if matches!(c, '}' | ',') {
                    let Some(length) = braces.last() else { break };
                    path.truncate(*length);
                    whole = c == '}';
                }
                rest = &rest[name.len().max(c.len_utf8())..];
            }
        }
    }
    found.sort();
    found
}

/// The modules that a file names after `crate::`, each with its line. For
/// `crate::{a::b, c}`, both `a` and `c`.
fn imports(text: &str) -> Vec<(usize, String)> {
    let of_crate = paths(text).into_iter().filter(|(_, path)| path[0] == "crate");
    let mut modules: Vec<(usize, String)> = of_crate.map(|(line, path)| (line, path[1].clone())).collect();
    modules.dedup();
    modules
}

#[test]
fn every_way_to_import_is_seen() {
    let text =
        "use crate::{\n    a::{self, x},\n    b,\n};\n// crate::c\nuse crate::d::{e, f};\nlet x = crate::g::h();\n";
    let names = [(1, "a"), (1, "b"), (6, "d"), (7, "g")];
    assert_eq!(imports(text), names.map(|(line, name)| (line, name.to_owned())));

    let text = "use super::{a as b, c::{d, e::*}, f};\nsuper::super::g::<T>(super::h, i)\nlet x = upper::k;\n";
    let whole = paths(text).into_iter().map(|(line, path)| format!("{line} {}", path.join("::")));
    let expected = ["1 super::a", "1 super::c::d", "1 super::c::e::*", "1 super::f", "2 super::h", "2 super::super::g"];
    assert_eq!(whole.collect::<Vec<_>>(), expected);
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

#[test]
fn every_module_imports_only_modules_above_it() {
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

/// Modules whose parts, at every depth, import each other in one direction.
const WITHOUT_CIRCLES: &[&str] = &["engine", "guard", "gateway", "kinds", "spec", "stack", "run"];

/// Imports that may close a circle: from, to, and why.
const CIRCLES: &[(&str, &str, &str)] = &[
    ("engine/plan", "engine/lint", "a plan is checked before anybody sees it, and the check reads a plan"),
    ("engine/plan", "engine/drift", "a plan says what drifted, and drift is found by steps of a plan"),
];

/// The directories of a module.
fn directories(module: &Path) -> Vec<PathBuf> {
    let inside = fs::read_dir(module).expect("a module").flatten().map(|entry| entry.path()).filter(|p| p.is_dir());
    std::iter::once(module.to_owned()).chain(inside.flat_map(|path| directories(&path))).collect()
}

/// Where parts of one struct stand in several files. A call of `self.method()` counts as an import of the file that
/// defines the method.
const SHARED_STRUCTS: &[&str] = &["engine/execute", "engine/plan", "kinds", "run", "spec", "stack"];

/// The methods that a file defines: all of them, and those that its siblings may call.
fn methods(text: &str) -> (BTreeSet<&str>, BTreeSet<&str>) {
    let (mut all, mut offered) = (BTreeSet::new(), BTreeSet::new());
    for line in text.lines().filter_map(|line| line.strip_prefix("    ")) {
        let public = ["pub(super) ", "pub "].into_iter().find_map(|public| line.strip_prefix(public));
        let line = public.unwrap_or(line);
        let Some(rest) = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ") else { continue };
        let name = rest.split(['(', '<']).next().unwrap_or_default();
        all.insert(name);
        offered.extend(public.map(|_| name));
    }
    (all, offered)
}

/// For each file or directory of `directory`, the others whose methods it calls on `self`, each with the method.
fn calls(texts: &BTreeMap<String, String>) -> Vec<(String, String, String)> {
    let mut homes: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
    for (name, text) in texts {
        methods(text).1.into_iter().for_each(|method| homes.entry(method).or_default().push(name));
    }
    let mut calls = Vec::new();
    for (name, text) in texts {
        let own = methods(text).0;
        for (at, found) in text.match_indices("self.") {
            let rest = &text[at + found.len()..];
            let method = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
            let called = rest[method.len()..].starts_with('(') && !own.contains(method);
            // A name that several files define may be of another struct.
            if let Some([home]) = homes.get(method).map(Vec::as_slice).filter(|_| called) {
                calls.push((name.clone(), (*home).clone(), format!("self.{method}()")));
            }
        }
    }
    calls
}

#[test]
fn calls_of_methods_in_other_files_are_seen() {
    let texts = [
        ("a", "impl S {\n    fn own(&self) {\n        self.own();\n        self.far(1).self.field;\n    }\n}\n"),
        ("b", "impl S {\n    pub(super) async fn far(&self, n: u8) {}\n    fn own(&self) {}\n}\n"),
    ];
    let texts = texts.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
    assert_eq!(calls(&texts), [("a".to_owned(), "b".to_owned(), "self.far()".to_owned())]);
}

/// For each file or directory of `directory`, the others that it imports, each with a line that does.
fn siblings(directory: &Path) -> BTreeMap<String, BTreeMap<String, String>> {
    let module = |file: &Path| -> Vec<String> {
        let place = file.strip_prefix(src()).expect("under src").with_extension("");
        place.iter().map(|step| step.to_string_lossy().into_owned()).filter(|step| step != "mod").collect()
    };
    let here = module(directory);
    let mut all: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    for file in sources(directory) {
        let own = module(&file);
        let Some(name) = own.get(here.len()) else { continue };
        let text = fs::read_to_string(&file).expect("a source file");
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        texts.entry(name.clone()).or_default().push_str(text);
        let uses = all.entry(name.clone()).or_default();
        for (line, path) in paths(text) {
            let ups = path.iter().filter(|step| *step == "super").count();
            let from = if ups == 0 { &[] } else { &own[..own.len().saturating_sub(ups)] };
            let whole = [from, &path[ups.max(1)..]].concat();
            if let Some(other) = whole.strip_prefix(here.as_slice()).and_then(|rest| rest.first()) {
                uses.entry(other.clone()).or_insert_with(|| format!("{}:{line}", file.display()));
            }
        }
    }
    let place = here.join("/");
    if SHARED_STRUCTS.iter().any(|shared| place == *shared || place.starts_with(&format!("{shared}/"))) {
        for (name, other, call) in calls(&texts) {
            all.entry(name).or_default().entry(other).or_insert(call);
        }
    }
    let names: BTreeSet<String> = all.keys().cloned().collect();
    for (name, uses) in &mut all {
        uses.retain(|other, _| other != name && names.contains(other));
    }
    all
}

#[test]
fn no_modules_import_each_other_in_a_circle() {
    let mut wrong = Vec::new();
    let mut unused: BTreeSet<_> = CIRCLES.iter().map(|(from, to, _)| (*from, *to)).collect();
    for directory in WITHOUT_CIRCLES.iter().flat_map(|module| directories(&src().join(module))) {
        let place = directory.strip_prefix(src()).expect("under src").display().to_string();
        let mut left = siblings(&directory);
        for (from, to, _) in CIRCLES {
            let inside = |name: &str| name.strip_prefix(&place)?.strip_prefix('/').map(str::to_owned);
            let Some((from_name, to_name)) = inside(from).zip(inside(to)) else { continue };
            if left.get_mut(&from_name).is_some_and(|uses| uses.remove(&to_name).is_some()) {
                unused.remove(&(from, to));
            }
        }
        // A module that imports no other of these, or that no other imports, is in no circle.
        loop {
            let names: BTreeSet<String> = left.keys().cloned().collect();
            let imported: BTreeSet<String> = left.values().flat_map(BTreeMap::keys).cloned().collect();
            left.retain(|name, uses| imported.contains(name) && uses.keys().any(|other| names.contains(other)));
            for uses in left.values_mut() {
                uses.retain(|other, _| names.contains(other));
            }
            if left.len() == names.len() {
                break;
            }
        }
        for (name, uses) in left {
            wrong.extend(uses.into_iter().map(|(other, at)| format!("{place}/{name} imports {other} ({at})")));
        }
    }
    assert!(wrong.is_empty(), "these import each other in a circle:\n{}", wrong.join("\n"));
    assert!(unused.is_empty(), "no import needs these exceptions: {unused:?}");
}

#[test]
fn every_module_stands_in_the_table() {
    for entry in fs::read_dir(src()).expect("src").flatten().filter(|e| e.path().is_dir()) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let known = name == "cli" || LAYERS.iter().any(|(layer, _)| *layer == name);
        assert!(known, "src/{name} is in no layer: add it to the table and to lib.rs");
    }
}

/// The engine asks the kinds for all facts about AWS and Kubernetes.
#[test]
fn the_engine_names_no_kind_of_aws() {
    for file in sources(&src().join("engine")) {
        let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if ["tests.rs", "timing.rs"].contains(&name.as_str()) {
            continue;
        }
        let text = fs::read_to_string(&file).expect("a source file");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for what in ["\"aws.", "\"k8s.", "ringfence.dev/", "aws_sdk", "\"cluster\"", "/object/"] {
            assert_eq!(code.lines().find(|line| line.contains(what)), None, "{}: {what}", file.display());
        }
        // A comment may give a cluster as an example of a host.
        let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        let named = code.map(|line| line.split(" // ").next().unwrap_or(line)).find(|line| line.contains("cluster"));
        assert_eq!(named, None, "{}", file.display());
    }
}

/// Other programs than the command line call the application layer, so it doesn't print or exit.
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

/// Modules that decide or show know only the facts of kinds. Modules that read or execute have their calls, too.
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
