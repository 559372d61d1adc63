//! Templates: IAM documents, user data and in-cluster objects. They are files
//! under `templates/` and compiled in. A directory of the user replaces files
//! of the same name and may add in-cluster objects.
//!
//! Three rules keep a value from becoming code. A name that isn't defined is an
//! error. Text is written unchanged only if it is plain (`A-Z a-z 0-9 . _ /
//! -`); all other text must go through `| json`, which quotes it. The rendered
//! text is parsed as YAML, JSON or TOML before anything uses it.

mod shape;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tera::{Context, ErrorKind, Kwargs, State, Tera, TeraResult};

use crate::engine::error::{Class, Error, Result};
use crate::files;
use shape::Shapes;

macro_rules! built_in {
    ($($name:literal)*) => {
        /// All compiled-in templates by name.
        const BUILT_IN: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../templates/", $name))),)*];
    };
}

built_in! {
    "iam/cluster-policy.json"
    "iam/cluster-trust.json"
    "iam/cni-policy.json"
    "iam/endpoint-policy.json"
    "iam/fargate-trust.json"
    "iam/flow-logs-policy.json"
    "iam/flow-logs-trust.json"
    "iam/images-policy.json"
    "iam/irsa-trust.json"
    "iam/key-policy.json"
    "iam/node-trust.json"
    "iam/pod-identity-trust.json"
    "manifests/cluster/admission-access.yaml"
    "manifests/cluster/admission-nodes.yaml"
    "manifests/cluster/admission-objects.yaml"
    "manifests/cluster/admission-pods.yaml"
    "manifests/cluster/admission-stamps.yaml"
    "manifests/cluster/calico.yaml"
    "manifests/cluster/cluster-network-policies.yaml"
    "manifests/cluster/gateway.yaml"
    "manifests/cluster/network-policies.yaml"
    "manifests/cluster/priority-classes.yaml"
    "manifests/cluster/webhook.yaml"
    "manifests/psp/cluster.yaml"
    "manifests/psp/tenant.yaml"
    "manifests/tenant/access.yaml"
    "manifests/tenant/calico.yaml"
    "manifests/tenant/cluster-network-policy.yaml"
    "manifests/tenant/gateway.yaml"
    "manifests/tenant/limits.yaml"
    "manifests/tenant/namespace.yaml"
    "manifests/tenant/network-policies.yaml"
    "manifests/tenant/security-group-policy.yaml"
    "manifests/tenant/service-accounts.yaml"
    "user-data/bottlerocket.toml"
    "user-data/node-config.yaml"
}

/// The folder in which a user's directory may add files. In other folders it
/// may only replace files.
const OPEN: &str = "manifests/";

/// Marks the place in the output where text was refused because it isn't plain.
const REFUSED: char = '\u{E003}';

/// The templates of a run.
pub struct Templates {
    tera: Tera,
    /// All templates by name, with the user's file that replaces or adds it.
    files: BTreeMap<String, Option<PathBuf>>,
    shapes: Shapes,
}

impl Templates {
    /// The compiled-in templates.
    pub fn built_in() -> Result<Self> {
        Self::load(None)
    }

    /// The compiled-in templates, replaced and extended by those of `directory`
    /// (`--templates`).
    pub fn load(directory: Option<&Path>) -> Result<Self> {
        let mut sources: BTreeMap<String, (String, Option<PathBuf>)> =
            BUILT_IN.iter().map(|(name, text)| ((*name).to_owned(), ((*text).to_owned(), None))).collect();
        for (name, path) in directory.map(files_under).transpose()?.into_iter().flatten() {
            if !sources.contains_key(&name) && !is_addition(&name) {
                return Err(Error::input(format!("{} doesn't replace a template", path.display())).help(format!(
                    "a file there has the name of a built-in one ({}), or adds objects as {OPEN}cluster/*.yaml or {OPEN}tenant/*.yaml",
                    BUILT_IN.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
                )));
            }
            let text = std::fs::read_to_string(&path)
                .map_err(|e| Error::input(format!("the template {} can't be read: {e}", path.display())))?;
            sources.insert(name, (text, Some(path)));
        }

        let mut tera = Tera::default();
        tera.autoescape_on([".json", ".toml", ".yaml"]);
        tera.set_escape_fn(plain);
        tera.register_filter("json", json);
        let mut files = BTreeMap::new();
        let mut texts = Vec::new();
        for (name, (text, path)) in sources {
            files.insert(name.clone(), path);
            texts.push((name, text));
        }
        let mut templates = Self { tera: Tera::default(), files, shapes: Shapes::default() };
        tera.add_raw_templates(texts).map_err(|e| templates.broken(&e, "", ""))?;
        templates.tera = tera;
        Ok(templates)
    }

    /// Renders all templates in a folder, such as `manifests/tenant/`, as YAML. Each item is a template's name and its
    /// documents. Names are sorted.
    pub fn documents<'a>(
        &'a self,
        folder: &'a str,
        context: &Value,
        subject: &'a impl Display,
    ) -> Result<impl Iterator<Item = Result<(&'a str, Vec<Value>)>>> {
        let names = self.files.keys().map(String::as_str).filter(move |name| name.starts_with(folder));
        let context = self.context(context, folder, subject)?;
        Ok(names.map(move |name| Ok((name, self.documents_of(name, &context, subject)?))))
    }

    /// Renders a JSON document. Errors name the `subject` for which it is
    /// rendered.
    pub fn json(&self, name: &str, context: &Value, subject: impl Display) -> Result<Value> {
        let text = self.render(name, &self.context(context, name, &subject)?, &subject)?;
        let value =
            serde_json::from_str(&text).map_err(|e| self.unparsable(name, &text, e.line(), &subject, "JSON", &e))?;
        Ok(sorted(value))
    }

    /// Renders YAML documents. Empty documents are left out.
    pub fn yaml(&self, name: &str, context: &Value, subject: impl Display) -> Result<Vec<Value>> {
        self.documents_of(name, &self.context(context, name, &subject)?, &subject)
    }

    fn documents_of(&self, name: &str, context: &Context, subject: &impl Display) -> Result<Vec<Value>> {
        let text = self.render(name, context, subject)?;
        let documents = self.shapes.documents(&text, parsed).map_err(|e| {
            let line = e.location().map_or(0, |l| usize::try_from(l.line()).unwrap_or(0));
            self.unparsable(name, &text, line, subject, "YAML", e.without_snippet())
        })?;
        Ok(documents.into_iter().filter(|d| !d.is_null()).map(sorted).collect())
    }

    /// Renders TOML. Returns the text, which was parsed as a check.
    pub fn toml(&self, name: &str, context: &Value, subject: impl Display) -> Result<String> {
        let text = self.render(name, &self.context(context, name, &subject)?, &subject)?;
        if let Err(e) = toml::from_str::<toml::Table>(&text) {
            let start = e.span().map_or(0, |s| s.start);
            let line = text.char_indices().take_while(|(i, _)| *i < start).filter(|(_, c)| *c == '\n').count() + 1;
            return Err(self.unparsable(name, &text, line, &subject, "TOML", &e.message()));
        }
        Ok(text)
    }

    fn context(&self, values: &Value, name: &str, subject: &impl Display) -> Result<Context> {
        Context::from_serialize(values).map_err(|e| self.broken(&e, name, &subject.to_string()))
    }

    fn render(&self, name: &str, context: &Context, subject: &impl Display) -> Result<String> {
        let text = self.tera.render(name, context).map_err(|e| self.broken(&e, name, &subject.to_string()))?;
        if !text.contains(REFUSED) {
            return Ok(text);
        }
        match text.lines().enumerate().find(|(_, line)| line.contains(REFUSED)) {
            None => Ok(text),
            Some((i, line)) => Err(self.fails(
                name,
                format!(
                    "line {} of the rendered text for {subject} holds text that isn't plain: {}",
                    i + 1,
                    line.trim().replace(REFUSED, "")
                ),
                "write such values with `| json`, which quotes them",
            )),
        }
    }

    fn broken(&self, error: &tera::Error, name: &str, subject: &str) -> Error {
        let whom = if subject.is_empty() { String::new() } else { format!(", for {subject}") };
        match error.kind() {
            ErrorKind::SyntaxError(report) | ErrorKind::RenderingError(report) => self.fails(
                report.filename(),
                format!("line {}{whom}: {}", report.span().start_line, report.message()),
                "correct the template; the README of templates/ lists the names that it may use",
            ),
            _ => self.fails(name, format!("it can't be rendered{whom}: {error}"), "correct the template"),
        }
    }

    fn unparsable(
        &self,
        name: &str,
        text: &str,
        line: usize,
        subject: &impl Display,
        format: &str,
        error: &dyn Display,
    ) -> Error {
        let excerpt = line.checked_sub(1).and_then(|i| text.lines().nth(i)).unwrap_or_default().trim();
        self.fails(
            name,
            format!("the rendered text for {subject} isn't {format}: line {line}, `{excerpt}`: {error}"),
            "correct the template; write values that may hold other than plain text with `| json`",
        )
    }

    /// A failing built-in template is a bug; a failing template of the user is
    /// an input error.
    fn fails(&self, name: &str, what: String, help: &str) -> Error {
        match self.files.get(name).and_then(Option::as_ref) {
            Some(path) => Error::input(format!("template {}: {what}", path.display())).help(help),
            None => Error::new(Class::Bug, format!("template {name}: {what}")),
        }
    }
}

/// An object as YAML text.
pub fn yaml(object: &Value) -> Result<String> {
    serde_yaml::to_string(object).map_err(|e| Error::bug(format!("an object can't be written as YAML: {e}")))
}

fn is_addition(name: &str) -> bool {
    let folder = |f: &str| name.strip_prefix(OPEN).and_then(|n| n.strip_prefix(f));
    folder("cluster/").or_else(|| folder("tenant/")).is_some_and(|file| file.ends_with(".yaml") && !file.contains('/'))
}

/// All files below `directory` with their template names. Hidden files and
/// README files aren't templates.
fn files_under(directory: &Path) -> Result<Vec<(String, PathBuf)>> {
    let unreadable = |path: &Path, e: std::io::Error| {
        Error::input(format!("the templates in {} can't be read: {e}", path.display()))
    };
    let mut found = Vec::new();
    let mut folders = vec![(String::new(), directory.to_owned())];
    while let Some((prefix, folder)) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(|e| unreadable(&folder, e))? {
            let entry = entry.map_err(|e| unreadable(&folder, e))?;
            let path = entry.path();
            let file = entry.file_name().to_string_lossy().into_owned();
            if file.starts_with('.') || file.starts_with("README") {
                continue;
            }
            if entry.file_type().map_err(|e| unreadable(&path, e))?.is_dir() {
                folders.push((format!("{prefix}{file}/"), path));
            } else {
                files::within(directory, &path).map_err(|e| unreadable(&path, e))?;
                found.push((format!("{prefix}{file}"), path));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Writes plain text. Writes a mark in place of any other text.
fn plain(text: &str, output: &mut dyn Write) -> std::io::Result<()> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '/' | '-');
    if text.chars().all(is_plain) {
        output.write_all(text.as_bytes())
    } else {
        write!(output, "{REFUSED}{}", text.escape_debug())
    }
}

/// `{{ value | json }}`: a quoted value, which is valid in YAML, JSON and TOML.
fn json(value: tera::Value, _: Kwargs, _: &State) -> TeraResult<tera::Value> {
    if value.is_undefined() {
        return Err(tera::Error::message("a name that isn't defined"));
    }
    let value = serde_json::to_value(&value).map_err(tera::Error::message)?;
    Ok(tera::Value::safe_string(&sorted(value).to_string()))
}

/// The documents of YAML, with sorted keys.
fn parsed(text: &str) -> std::result::Result<Vec<Value>, serde_yaml::Error> {
    let documents: Vec<Value> = serde_yaml::from_multiple(text)?;
    Ok(documents.into_iter().map(sorted).collect())
}

/// Sorts object keys, so that the same input gives the same bytes.
fn sorted(mut value: Value) -> Value {
    sort(&mut value);
    value
}

fn sort(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if !map.keys().is_sorted() {
                map.sort_keys();
            }
            map.values_mut().for_each(sort);
        }
        Value::Array(items) => items.iter_mut().for_each(sort),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use serde_json::json;

    use super::*;

    fn with(name: &str, text: &str) -> Result<Templates> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        Templates::load(Some(directory.path()))
    }

    #[test]
    fn the_table_lists_every_file() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates");
        let files: Vec<String> = files_under(&root).unwrap().into_iter().map(|(name, _)| name).collect();
        let table: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
        assert_eq!(table, files);
        Templates::built_in().unwrap();
    }

    #[test]
    fn yaml_reads_back() {
        let object = json!({"a": "1", "b": ["yes", "# no", "x: y", "", "\u{2028}", " "], "c": {"d/e": null, "f": 1.5}, "g": "null"});
        let back: Value = serde_yaml::from_str(&yaml(&object).unwrap()).unwrap();
        assert_eq!(back, object);
    }

    #[test]
    fn undefined_names_are_errors_with_line_and_subject() {
        let name = "manifests/tenant/extra.yaml";
        let templates = with(name, "a: 1\nb: {{ tenant.nmae | json }}\n").unwrap();
        let error = templates.yaml(name, &json!({"tenant": {"name": "x"}}), "tenant 1").unwrap_err();
        assert_eq!(error.class, Class::Input);
        assert!(error.message.contains("extra.yaml: line 2, for tenant 1"), "{error}");
        let templates = with(name, "b: {{ tenant.nmae }}\n").unwrap();
        assert!(templates.yaml(name, &json!({"tenant": {"name": "x"}}), "tenant 1").is_err());
        assert!(with(name, "a: {{ b\n").is_err_and(|e| e.message.contains("line")));
    }

    #[test]
    fn hostile_values_stay_values() {
        let hostile = "x\"\nkind: Secret #{{ y }} \u{2028} ' \\ : - & * !!";
        let name = "manifests/tenant/extra.yaml";
        let context = json!({"v": hostile, "list": [hostile], "map": {hostile: hostile}});
        let quoted = with(name, "v: {{ v | json }}\nl: {{ list | json }}\nm: {{ map | json }}\n").unwrap();
        let got = quoted.yaml(name, &context, "it").unwrap();
        assert_eq!(got, [json!({"v": hostile, "l": [hostile], "m": {hostile: hostile}})]);
        for bare in ["v: {{ v }}", "v: \"{{ v }}\"", "v: {{ list }}", "v: {{ map }}", "v: a{{ v }}"] {
            let error = with(name, bare).unwrap().yaml(name, &context, "tenant 7").unwrap_err();
            assert!(error.message.contains("isn't plain") && error.message.contains("tenant 7"), "{error}");
        }
    }

    #[test]
    fn plain_text_and_numbers_need_no_filter() {
        let name = "manifests/tenant/extra.yaml";
        let templates = with(name, "v: t-{{ id }}\nn: {{ n }}\nb: {{ b }}\n").unwrap();
        let got = templates.yaml(name, &json!({"id": "ab1", "n": 3, "b": true}), "it").unwrap();
        assert_eq!(got, [json!({"v": "t-ab1", "n": 3, "b": true})]);
    }

    #[test]
    fn what_is_rendered_is_parsed() {
        let name = "manifests/tenant/extra.yaml";
        let broken = with(name, "a: [1\nb: }\n").unwrap();
        assert!(broken.yaml(name, &json!({}), "tenant 1").is_err_and(|e| e.message.contains("isn't YAML")));
        let name = "user-data/bottlerocket.toml";
        let broken = with(name, "[settings\n").unwrap();
        assert!(broken.toml(name, &json!({}), "tenant 1").is_err_and(|e| e.message.contains("isn't TOML: line 1")));
        let name = "iam/node-trust.json";
        let broken = with(name, "{\"a\": }").unwrap();
        assert!(broken.json(name, &json!({}), "tenant 1").is_err_and(|e| e.message.contains("isn't JSON: line 1")));
    }

    #[test]
    fn a_directory_replaces_and_adds_but_nothing_else() {
        assert!(with("manifests/tenant/extra.yaml", "").is_ok());
        for stray in ["iam/mine.json", "manifests/extra.yaml", "manifests/tenant/a/b.yaml", "manifests/tenant/a.yml"] {
            assert!(with(stray, "").is_err_and(|e| e.message.contains("doesn't replace a template")), "{stray}");
        }
        let templates = with("iam/node-trust.json", "{\"mine\": true}").unwrap();
        assert_eq!(templates.json("iam/node-trust.json", &json!({}), "it").unwrap(), json!({"mine": true}));
    }
}
