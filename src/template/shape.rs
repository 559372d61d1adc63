//! Rendered texts that differ in quoted words only, such as those of the tenants of a tier, are parsed once.
//!
//! A *word* stands between two quotation marks of a line, and has only letters, digits and `. _ / : -`, with a letter or
//! digit at both ends. Whatever the text around it is (a quoted or a block scalar, a comment), another word in its
//! place changes nothing but that word. So the words are taken out, and the rest (the *shape*) is parsed with a
//! character in the place of each word. The same word gets the same character, so that keys that are the same stay the
//! same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};

/// The characters that stand for words, of Unicode's private use area. Those of references come before them. A text with
/// more words is parsed as it is.
const FIRST: u32 = 0xE100;
const LAST: u32 = FIRST + 999;

/// The shapes that are kept. An estate has a few for each template.
const KEPT: usize = 100;

/// The parsed documents of shapes.
#[derive(Default)]
pub struct Shapes(Mutex<HashMap<String, Arc<Vec<Value>>>>);

impl Shapes {
    /// The documents of `text`. `parse` parses a text, or a shape.
    pub fn documents<E>(&self, text: &str, parse: impl Fn(&str) -> Result<Vec<Value>, E>) -> Result<Vec<Value>, E> {
        let filled = split(text).and_then(|(shape, words)| {
            let known = self.lock().get(&shape).cloned();
            let documents = match known {
                Some(documents) => documents,
                None => self.keep(shape.clone(), parse(&shape).ok()?),
            };
            documents.iter().map(|document| fill(document, &words)).collect()
        });
        // An error must name the line and the words of the text itself.
        filled.map_or_else(|| parse(text), Ok)
    }

    fn keep(&self, shape: String, documents: Vec<Value>) -> Arc<Vec<Value>> {
        let documents = Arc::new(documents);
        let mut kept = self.lock();
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(shape, documents.clone());
        documents
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Vec<Value>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The shape of a text and its words. None if the text has characters that stand for words, or too many words.
fn split(text: &str) -> Option<(String, Vec<&str>)> {
    // The characters that stand for words have three bytes, of which the first is one of these two.
    let may_stand = text.bytes().any(|byte| matches!(byte, 0xEE | 0xEF));
    if may_stand && text.chars().any(stands_for_a_word) {
        return None;
    }
    let mut shape = String::with_capacity(text.len());
    let mut words: Vec<&str> = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('"') {
        shape.push_str(before);
        shape.push('"');
        rest = after;
        let Some((word, after)) = after.split_once('"').filter(|(word, _)| is_word(word)) else { continue };
        // A text has few words, so a search is faster than a map.
        let place = words.iter().position(|known| *known == word).unwrap_or_else(|| {
            words.push(word);
            words.len() - 1
        });
        let number = FIRST.checked_add(u32::try_from(place).ok()?).filter(|number| *number <= LAST)?;
        shape.push(char::from_u32(number)?);
        shape.push('"');
        rest = after;
    }
    shape.push_str(rest);
    Some((shape, words))
}

fn is_word(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '/' | ':' | '-');
    ends(text.chars().next()) && ends(text.chars().next_back()) && text.chars().all(inner)
}

fn stands_for_a_word(c: char) -> bool {
    (FIRST..=LAST).contains(&u32::from(c))
}

/// A parsed shape with the words in their places. None if two keys of a map are the same then.
fn fill(shape: &Value, words: &[&str]) -> Option<Value> {
    Some(match shape {
        Value::String(text) => fill_text(text, words)?.into(),
        Value::Array(items) => Value::Array(items.iter().map(|item| fill(item, words)).collect::<Option<_>>()?),
        Value::Object(fields) => {
            let mut filled = Map::with_capacity(fields.len());
            for (key, value) in fields {
                if filled.insert(fill_text(key, words)?, fill(value, words)?).is_some() {
                    return None;
                }
            }
            Value::Object(filled)
        }
        other => other.clone(),
    })
}

fn fill_text(text: &str, words: &[&str]) -> Option<String> {
    if text.is_ascii() {
        return Some(text.to_owned());
    }
    let mut filled = String::with_capacity(text.len());
    for c in text.chars() {
        match stands_for_a_word(c) {
            true => filled.push_str(words.get(usize::try_from(u32::from(c) - FIRST).ok()?)?),
            false => filled.push(c),
        }
    }
    Some(filled)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Result<Vec<Value>, String> {
        serde_yaml::from_multiple(text).map_err(|why| why.to_string())
    }

    #[test]
    fn texts_of_one_shape_are_parsed_once() {
        let times = Cell::new(0);
        let parse = |text: &str| {
            times.set(times.get() + 1);
            parsed(text)
        };
        let shapes = Shapes::default();
        let text =
            |id: &str, uid: u32| format!("a: [\"tenant:{id}\", {{\"{id}\": \"{uid}\", b: \"x y\"}}] # \"{id}\"\n");
        for (id, uid) in [("acme", 10000), ("t2", 20000), ("true", 1), ("x", 7)] {
            let text = text(id, uid);
            assert_eq!(shapes.documents(&text, parse), parsed(&text));
        }
        assert_eq!(times.get(), 1);
    }

    #[test]
    fn what_is_wrong_with_a_text_is_said_of_the_text() {
        let shapes = Shapes::default();
        for text in ["a: \"b", "\"a\": 1\n\"b\": 2\na: 3\n", "\"a\": 1\n\"a\": 2\n", "a: [\"b\"\nc: \"d\"}"] {
            assert_eq!(shapes.documents(text, parsed), parsed(text), "{text}");
            assert!(parsed(text).is_err(), "{text}");
        }
        let text = "a: \"\u{E100}\", \"b\"";
        assert_eq!(shapes.documents(text, parsed), parsed(text));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]
        /// Lines of all that YAML has, with words in every place.
        #[test]
        fn a_shape_with_its_words_is_the_text(
            lines in prop::collection::vec(
                prop_oneof![
                    Just("k: \"W\""), Just("\"W\": [\"W\", W]"), Just("- \"W\": {a: \"W\", \"V\": 1}"), Just("k: |-\n  \"W\" is 'W'\n  \"V"),
                    Just("k: 'a \"W\" it''s'"), Just("k: a \"W\" b"), Just("k: \"a\n  W\", \"b\""), Just("k: \"a\\\"W\\\" \\\\\"V\"\\n\""), Just("# \"W\" \""),
                    Just("---"), Just("k: >\n  \"W\"\n"), Just("  \"W\": \"V\""), Just("k: &\"W\" x"), Just("k: *\"W\""), Just("\"W\" : \"V\" : \"W\""),
                    Just("k: [\"W\"W\"V\"]"), Just("k: \"x\n W\"V\"y\n  z\"")
                ],
                0..6,
            ),
            words in prop::collection::vec("[a-z0-9.:/-]{1,6}|true|null|1", 2),
        ) {
            let text = lines.iter().enumerate().map(|(i, line)| format!("{}\n", line.replace('k', &format!("k{i}")))).collect::<String>();
            let text = text.replace('W', &words[0]).replace('V', &words[1]);
            let shapes = Shapes::default();
            // The second time, the shape is known.
            for _ in 0..2 {
                prop_assert_eq!(shapes.documents(&text, parsed), parsed(&text));
            }
        }
    }
}
