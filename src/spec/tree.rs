//! A YAML document as a tree in which each value has its place in the file.
//!
//! It is built from the parser's events and not through serde, because serde stops at the first mistake and keeps no
//! place for keys. This builder continues after duplicate keys, and every later check can show the place of a mistake.
//! Size, depth and the growth by aliases are bounded.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_yaml::granit_parser::{ErrorKind, Event, Marker, Options, Parser, ScalarStyle, Span, Tag};

use super::error::{Code, Excerpt, SpecError};
use super::words::{join, quote};

/// People write specs. A larger file is a mistake or an attack.
pub const MAX_BYTES: usize = 1024 * 1024;
const MAX_DEPTH: usize = 64;
const MAX_NODES: usize = 250_000;
/// Characters of a line that an error shows.
const EXCERPT_WIDTH: usize = 160;

/// A file that marks refer to.
#[derive(Debug)]
pub struct Source {
    file: PathBuf,
    lines: Vec<String>,
}

/// A piece of one line.
#[derive(Clone, Debug)]
pub struct Mark {
    source: Arc<Source>,
    line: usize,
    column: usize,
    length: usize,
}

/// A value and its place.
#[derive(Clone, Debug)]
pub struct Node {
    pub value: Value,
    pub mark: Mark,
}

#[derive(Clone, Debug)]
pub enum Value {
    Null,
    Bool(bool),
    /// `int` is `None` for a fraction, and for a whole number that doesn't fit.
    Number {
        raw: String,
        int: Option<i64>,
    },
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// A mistake that was already reported. Later checks ignore it.
    Invalid,
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub key: String,
    pub key_mark: Mark,
    pub value: Node,
}

impl Source {
    fn new(file: &Path, text: &str) -> Arc<Self> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
        let lines = text.split(['\n', '\r']).map(str::to_owned).collect();
        Arc::new(Self { file: file.to_owned(), lines })
    }
}

impl Mark {
    /// The excerpt of the file that an error shows.
    pub fn excerpt(&self) -> Excerpt {
        let Self { source, line, column, length } = self;
        let whole = line.checked_sub(1).and_then(|i| source.lines.get(i)).map_or("", String::as_str);
        let width = whole.chars().count();
        let start = match column.saturating_sub(1) {
            offset if width > EXCERPT_WIDTH && offset > EXCERPT_WIDTH / 2 => offset - EXCERPT_WIDTH / 2,
            _ => 0,
        };
        let text: String = whole.chars().skip(start).take(EXCERPT_WIDTH).collect();
        let text_column = column - start;
        let room = (text.chars().count() + 1).saturating_sub(text_column).max(1);
        Excerpt {
            file: source.file.clone(),
            line: *line,
            column: *column,
            length: (*length).clamp(1, room),
            text,
            text_column,
        }
    }

    /// True if the mark is in this file.
    pub fn is_in(&self, source: &Arc<Source>) -> bool {
        Arc::ptr_eq(&self.source, source)
    }

    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }
}

impl Node {
    /// A placeholder for a file that isn't valid YAML. Every check ignores it.
    pub fn nothing(file: &Path) -> Self {
        let mark = Mark { source: Source::new(file, ""), line: 0, column: 1, length: 1 };
        Self { value: Value::Invalid, mark }
    }

    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|e| &e.value)
    }

    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|e| e.key == key)
    }

    /// The value at a path of keys and indices. `None` if there is none.
    pub fn at<S: AsRef<str>>(&self, path: &[S]) -> Option<&Node> {
        path.iter().try_fold(self, |node, step| match &node.value {
            Value::List(items) => step.as_ref().parse::<usize>().ok().and_then(|i| items.get(i)),
            _ => node.get(step.as_ref()),
        })
    }

    /// The value at a path of keys and indices. If there is none, the nearest value around it.
    pub fn nearest<S: AsRef<str>>(&self, path: &[S]) -> &Node {
        (0..=path.len()).rev().find_map(|n| path.get(..n).and_then(|p| self.at(p))).unwrap_or(self)
    }

    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The node and its text. `None` if it isn't text.
    pub fn with_text(&self) -> Option<(&Node, &str)> {
        self.text().map(|text| (self, text))
    }

    pub fn int(&self) -> Option<i64> {
        match self.value {
            Value::Number { int, .. } => int,
            _ => None,
        }
    }

    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// A copy without invalid values.
    pub fn pruned(&self) -> Node {
        let keep = |node: &&Node| !matches!(node.value, Value::Invalid);
        let value = match &self.value {
            Value::List(items) => Value::List(items.iter().filter(keep).map(Node::pruned).collect()),
            Value::Map(entries) => {
                let entries = entries.iter().filter(|e| keep(&&e.value));
                Value::Map(entries.map(|e| Entry { value: e.value.pruned(), ..e.clone() }).collect())
            }
            other => other.clone(),
        };
        Node { value, mark: self.mark.clone() }
    }

    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null | Value::Invalid => Json::Null,
            Value::Bool(b) => (*b).into(),
            Value::Number { int: Some(int), .. } => (*int).into(),
            Value::Number { raw, int: None } => raw.parse::<f64>().map_or(Json::Null, Json::from),
            Value::Text(text) => text.clone().into(),
            Value::List(items) => items.iter().map(Node::to_json).collect(),
            Value::Map(entries) => Json::Object(entries.iter().map(|e| (e.key.clone(), e.value.to_json())).collect()),
        }
    }
}

/// A document, and mistakes that didn't stop the parser.
#[derive(Debug)]
pub struct Tree {
    pub root: Node,
    pub duplicates: Vec<SpecError>,
}

/// Reads one YAML document. `what` names it for the reader ("a tenancy").
pub fn parse(file: &Path, text: &str, what: &str) -> Result<Tree, Box<SpecError>> {
    if text.len() > MAX_BYTES {
        let message = format!("the file has more than {MAX_BYTES} bytes, which is the limit for {what}");
        return Err(Box::new(whole_file(file, message, "split the estate into several tenancies")));
    }
    let source = Source::new(file, text);
    let mut options = Options::default();
    options.emit_comments = false;
    options.emit_unresolved_aliases = true;
    options.block_nesting_limit = MAX_DEPTH * 2;
    options.flow_nesting_limit = MAX_DEPTH * 2;
    let mut builder = Builder::new(source.clone());
    for event in Parser::new_from_str_with_options(text, options) {
        match event {
            Ok((event, span)) => builder.event(event, span)?,
            Err(error) => {
                let mark = mark_at(&source, error.marker(), None);
                if *error.kind() == ErrorKind::RecursionLimitExceeded {
                    return Err(too_deep(&mark));
                }
                return Err(syntax(&mark, format!("not valid YAML: {}", error.info()), hint(&mark)));
            }
        }
    }
    match builder.root {
        Some(Node { value: Value::Null, .. }) | None => {
            let help = format!("`ringfence schema` prints the structure of {what}");
            Err(Box::new(whole_file(file, "the file is empty".to_owned(), &help)))
        }
        Some(root) => Ok(Tree { root, duplicates: builder.duplicates }),
    }
}

/// An error about a file rather than a line of it.
pub fn whole_file(file: &Path, message: String, help: &str) -> SpecError {
    let at = Excerpt { file: file.to_owned(), line: 0, column: 0, length: 1, text: String::new(), text_column: 0 };
    SpecError { code: Code::Syntax, path: String::new(), at, message, help: Some(help.to_owned()), related: None }
}

fn syntax(mark: &Mark, message: String, help: Option<String>) -> Box<SpecError> {
    Box::new(SpecError { help, ..SpecError::new(Code::Syntax, "", mark, message) })
}

/// The usual cause of a syntax error.
fn hint(mark: &Mark) -> Option<String> {
    let text = mark.source.lines.get(mark.line.checked_sub(1)?)?;
    if text.trim_start_matches(' ').starts_with('\t') {
        return Some("indent with spaces; YAML allows no tabs".to_owned());
    }
    Some("check the indentation, and the quotes and brackets before this place".to_owned())
}

struct Builder {
    source: Arc<Source>,
    stack: Vec<Frame>,
    root: Option<Node>,
    documents: usize,
    nodes: usize,
    anchors: HashMap<usize, Anchor>,
    duplicates: Vec<SpecError>,
}

struct Anchor {
    node: Node,
    nodes: usize,
    depth: usize,
}

struct Frame {
    content: Content,
    anchor: usize,
    mark: Mark,
    /// The number of nodes before this one. It gives the size of an anchor.
    before: usize,
    /// The number of levels in this value, itself included.
    depth: usize,
}

enum Content {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, index: HashMap<String, usize>, key: Option<(String, Mark)>, merges: Vec<Node> },
}

impl Builder {
    fn new(source: Arc<Source>) -> Self {
        Self {
            source,
            stack: Vec::new(),
            root: None,
            documents: 0,
            nodes: 0,
            anchors: HashMap::new(),
            duplicates: Vec::new(),
        }
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Box<SpecError>> {
        let mark = mark_at(&self.source, &span.start, Some(&span.end));
        if let Some((tag, start)) =
            event.tag().zip(span.tag_start()).filter(|(tag, _)| !tag.is_yaml_core_schema_tag("str"))
        {
            return Err(unknown_tag(tag, &mark_at(&self.source, &start, None)));
        }
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    let help = "keep one document in a file".to_owned();
                    return Err(syntax(&mark, "a second document begins here".to_owned(), Some(help)));
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                let value = if plain { plain_scalar(&text) } else { Value::Text(text.into_owned()) };
                self.leaf(Node { value, mark }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => self.open(Content::List(Vec::new()), anchor, mark),
            Event::MappingStart(_, anchor, _) => {
                let map = Content::Map { entries: vec![], index: HashMap::new(), key: None, merges: vec![] };
                self.open(map, anchor, mark)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(&span.end),
            Event::Alias(id) => match self.anchors.get(&id) {
                Some(anchor) => {
                    let (node, nodes, depth) = (anchor.node.clone(), anchor.nodes, anchor.depth);
                    self.count(nodes, depth, &mark)?;
                    self.place(node, depth)
                }
                None => Err(syntax(&mark, "this alias refers to a value that contains the alias".to_owned(), None)),
            },
            Event::UnresolvedAlias(name) => {
                let help = format!("define the anchor before the alias, as `&{name} …`, or put the text in quotes");
                Err(syntax(&mark, format!("there is no anchor `{name}` before this alias"), Some(help)))
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, content: Content, anchor: usize, mark: Mark) -> Result<(), Box<SpecError>> {
        if let Some(Frame { content: Content::Map { key: None, .. }, .. }) = self.stack.last() {
            return Err(complex_key(&mark));
        }
        let before = self.nodes;
        self.count(1, 1, &mark)?;
        self.stack.push(Frame { content, anchor, mark, before, depth: 1 });
        Ok(())
    }

    fn close(&mut self, end: &Marker) -> Result<(), Box<SpecError>> {
        let Some(Frame { content, anchor, mut mark, before, depth }) = self.stack.pop() else { return Ok(()) };
        if end.line() == mark.line {
            mark.length = (end.col() + 1).saturating_sub(mark.column).max(1);
        }
        let value = match content {
            Content::List(items) => Value::List(items),
            Content::Map { mut entries, mut index, merges, .. } => {
                for merged in merges {
                    merge(&mut entries, &mut index, merged)?;
                }
                Value::Map(entries)
            }
        };
        let node = Node { value, mark };
        self.define(anchor, &node, self.nodes - before, depth);
        self.place(node, depth)
    }

    fn leaf(&mut self, node: Node, anchor: usize) -> Result<(), Box<SpecError>> {
        self.count(1, 0, &node.mark)?;
        self.define(anchor, &node, 1, 0);
        self.place(node, 0)
    }

    /// Anchors are numbered from 1; 0 is none.
    fn define(&mut self, anchor: usize, node: &Node, nodes: usize, depth: usize) {
        if anchor > 0 {
            self.anchors.insert(anchor, Anchor { node: node.clone(), nodes, depth });
        }
    }

    fn count(&mut self, nodes: usize, depth: usize, mark: &Mark) -> Result<(), Box<SpecError>> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            let message = format!("the file holds more than {MAX_NODES} values after aliases are expanded");
            return Err(syntax(mark, message, Some("write fewer aliases".to_owned())));
        }
        if self.stack.len() + depth > MAX_DEPTH {
            return Err(too_deep(mark));
        }
        Ok(())
    }

    /// Adds a complete node to the innermost open list or mapping.
    fn place(&mut self, node: Node, depth: usize) -> Result<(), Box<SpecError>> {
        let Some((frame, above)) = self.stack.split_last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        frame.depth = frame.depth.max(depth + 1);
        match &mut frame.content {
            Content::List(items) => items.push(node),
            Content::Map { entries, index, key, merges } => match key.take() {
                None => {
                    let text = match node.value {
                        Value::Text(text) => text,
                        Value::Number { raw, .. } => raw,
                        Value::Bool(b) => b.to_string(),
                        Value::Null | Value::Invalid => "null".to_owned(),
                        Value::List(_) | Value::Map(_) => return Err(complex_key(&node.mark)),
                    };
                    *key = Some((text, node.mark));
                }
                Some((key, _)) if key == "<<" => merges.push(node),
                Some((key, key_mark)) => match index.get(&key).and_then(|i| entries.get(*i)) {
                    Some(first) => {
                        let error =
                            SpecError::new(Code::Duplicate, "", &key_mark, format!("{} is given twice", quote(&key)));
                        let label = format!("{} is first given here", quote(&key));
                        let error = error.help("keep one of the two").related(&first.key_mark, label);
                        let path = join(&path_of(above), &key);
                        self.duplicates.push(SpecError { path, ..error });
                    }
                    None => {
                        index.insert(key.clone(), entries.len());
                        entries.push(Entry { key, key_mark, value: node });
                    }
                },
            },
        }
        Ok(())
    }
}

/// The path of the innermost open value. `around` are the values that contain it.
fn path_of(around: &[Frame]) -> String {
    around.iter().fold(String::new(), |path, frame| match &frame.content {
        Content::List(items) => format!("{path}[{}]", items.len()),
        Content::Map { key: Some((key, _)), .. } => join(&path, key),
        Content::Map { .. } => path,
    })
}

/// Merges the mapping of a key `<<`. Keys of the mapping itself have precedence.
fn merge(entries: &mut Vec<Entry>, index: &mut HashMap<String, usize>, from: Node) -> Result<(), Box<SpecError>> {
    match from.value {
        Value::Map(others) => {
            for other in others {
                if !index.contains_key(&other.key) {
                    index.insert(other.key.clone(), entries.len());
                    entries.push(other);
                }
            }
            Ok(())
        }
        Value::List(nodes) if nodes.iter().all(|n| matches!(n.value, Value::Map(_))) => {
            nodes.into_iter().try_for_each(|node| merge(entries, index, node))
        }
        _ => Err(syntax(&from.mark, "the value of `<<` must be a mapping or a list of mappings".to_owned(), None)),
    }
}

fn too_deep(mark: &Mark) -> Box<SpecError> {
    let message = format!("the value is nested more than {MAX_DEPTH} levels deep");
    syntax(mark, message, Some("no setting of a spec needs this many levels".to_owned()))
}

fn complex_key(mark: &Mark) -> Box<SpecError> {
    let help = "if the list or mapping is a value, put it after a key and a colon".to_owned();
    syntax(mark, "a key must be plain text".to_owned(), Some(help))
}

/// A YAML tag chooses a value's type. Here the schema decides the types, so tags are refused.
fn unknown_tag(tag: &Tag, mark: &Mark) -> Box<SpecError> {
    syntax(mark, format!("the YAML tag `{}` isn't supported", tag.original()), Some("remove the tag".to_owned()))
}

/// The parser counts characters: lines from 1, columns from 0.
fn mark_at(source: &Arc<Source>, start: &Marker, end: Option<&Marker>) -> Mark {
    let length = match end {
        Some(end) if end.line() == start.line() => end.col().saturating_sub(start.col()),
        // The value continues on later lines, so the rest of its first line is marked.
        Some(_) => usize::MAX / 2,
        None => 1,
    };
    Mark { source: source.clone(), line: start.line().max(1), column: start.col() + 1, length: length.max(1) }
}

/// YAML 1.2's core schema: `yes` and `on` are text, `2027-03-31` is text.
fn plain_scalar(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ if is_number(text) => Value::Number { raw: text.to_owned(), int: text.parse().ok() },
        _ => Value::Text(text.to_owned()),
    }
}

/// True for decimal numbers with an optional fraction and exponent. YAML's other numbers (hexadecimal, infinite) count
/// as text, because no field accepts them.
fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && unsigned.contains(|c: char| c.is_ascii_digit())
        && unsigned.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'))
        && text.parse::<f64>().is_ok()
}
