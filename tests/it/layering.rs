//! Imports go one way. What each module may know is the table below; the
//! order of modules in `lib.rs` follows it.

use std::fs;
use std::path::{Path, PathBuf};

/// Each module and what it may import.
const LAYERS: &[(&str, &[&str])] = &[
    ("engine", &[]),
    ("aws", &["engine"]),
    ("k8s", &["engine", "aws"]),
    ("kinds", &["engine", "aws", "k8s"]),
    ("spec", &["engine"]),
    ("template", &["engine"]),
    ("stack", &["engine", "aws", "kinds", "spec", "template"]),
    ("ui", &["engine", "spec"]),
    ("sandbox", &[]),
];

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).expect("a source directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
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
            for (number, line) in text.lines().enumerate() {
                for module in &modules {
                    let known = module == layer || allowed.contains(module);
                    if !known && line.contains(&format!("crate::{module}::")) && !line.trim_start().starts_with("//") {
                        wrong.push(format!("{}:{}: {layer} imports {module}", file.display(), number + 1));
                    }
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
