//! Helpers for messages: suggestions, lists, and safe quotes of the file's text.

/// `parent.key`. A key that holds a dot, a bracket or a space is written as `parent["key"]`.
pub fn join(parent: &str, key: &str) -> String {
    match (parent, key.contains(['.', '[', ' '])) {
        ("", _) => key.to_owned(),
        (_, true) => format!("{parent}[{key:?}]"),
        (_, false) => format!("{parent}.{key}"),
    }
}

/// Text from the file, safe and short enough for a message.
pub fn quote(text: &str) -> String {
    format!("`{}`", cut(text))
}

pub(super) fn cut(text: &str) -> String {
    let plain: String =
        text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect();
    if plain.chars().count() <= 80 { plain } else { plain.chars().take(79).chain(['…']).collect() }
}

/// The most similar candidate. `None` if no candidate is similar enough.
pub fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A long text isn't a typing error, and the cost of comparing is the product of the lengths.
    if text.len() > 64 {
        return None;
    }
    let plain = |s: &str| s.chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_lowercase();
    let text = plain(text);
    candidates
        .into_iter()
        .map(|candidate| (candidate, strsim::normalized_damerau_levenshtein(&text, &plain(candidate))))
        .filter(|(_, likeness)| *likeness >= 0.6)
        // Of several that are equally similar, the first.
        .reduce(|best, next| if next.1 > best.1 { next } else { best })
        .map(|(candidate, _)| candidate)
}

/// `a, b and c`, in backquotes.
pub fn list<'a>(items: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = items.into_iter().map(|item| format!("`{item}`")).collect();
    match quoted.split_last() {
        None => "none".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

/// A help for a wrong value: the similar candidate, or all candidates.
pub fn one_of(text: &str, candidates: &[&str]) -> String {
    match nearest(text, candidates.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if candidates.is_empty() => "there are none".to_owned(),
        None if candidates.len() == 1 => format!("the only possible value is {}", list(candidates.iter().copied())),
        None if candidates.len() <= 40 => format!("choose one of {}", list(candidates.iter().copied())),
        None => format!("`ringfence schema` lists the {} possible values", candidates.len()),
    }
}
