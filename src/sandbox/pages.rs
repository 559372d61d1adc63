//! Pages of lists, as most services have them.

use super::wire::Request;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// How a service pages its lists: its names for page size and token, the default page size and the largest.
pub struct Pages {
    pub size: &'static str,
    pub token: &'static str,
    pub next: &'static str,
    pub usual: usize,
    pub most: usize,
}

/// One page of a list, sorted by key. The token for the next page holds the last key of this one.
///
/// # Errors
/// The size or the token is invalid.
pub fn paged(
    req: &Request,
    pages: &Pages,
    list: &str,
    all: impl Iterator<Item = (String, Value)>,
) -> Result<Value, String> {
    let size = req.text(pages.size).map_or(Some(pages.usual), |size| size.parse().ok());
    let size = size.filter(|size| (1..=pages.most).contains(size));
    let size = size.ok_or_else(|| format!("{} must be between 1 and {}", pages.size, pages.most))?;
    let decoded = |token: String| String::from_utf8(STANDARD.decode(token).ok()?).ok();
    let after = match req.text(pages.token) {
        Some(token) => decoded(token).ok_or_else(|| format!("{} is not valid", pages.token))?,
        None => String::new(),
    };
    let mut rest: Vec<_> = all.filter(|(key, _)| after.is_empty() || *key > after).collect();
    rest.sort_by(|a, b| a.0.cmp(&b.0));
    let more = rest.len() > size;
    rest.truncate(size);
    let mut reply = json!({});
    if let Some((last, _)) = rest.last().filter(|_| more) {
        reply[pages.next] = STANDARD.encode(last).into();
    }
    reply[list] = rest.into_iter().map(|(_, value)| value).collect();
    Ok(reply)
}
