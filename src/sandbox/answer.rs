//! An answer, and how it is delivered to the client.

use super::faults::{self, Verdict, What};
use super::wire::HttpResponse;
use serde_json::Value;

/// An answer, and how it is delivered to the client.
pub(super) struct Answer {
    pub response: HttpResponse,
    pub delivery: Delivery,
}

pub(super) enum Delivery {
    Whole,
    /// The answer comes after so many real seconds.
    Late(f64),
    /// Only the first half of the body is sent.
    Half,
    /// The connection closes without an answer.
    Nothing,
    /// The connection stays open without an answer.
    Silence,
}

impl From<HttpResponse> for Answer {
    fn from(response: HttpResponse) -> Self {
        Self { response, delivery: Delivery::Whole }
    }
}

impl Answer {
    pub fn new(mut response: HttpResponse, verdict: Option<Verdict>, speed: f64, params: &Value) -> Self {
        let delivery = match verdict.map(|verdict| verdict.what) {
            Some(What::Drop) => Delivery::Nothing,
            Some(What::Hang | What::Die) => Delivery::Silence,
            Some(What::Cut) => Delivery::Half,
            Some(What::Delay(seconds)) => Delivery::Late(seconds / speed),
            Some(What::Html) => {
                let (status, body) = faults::page(params);
                let headers = vec![("content-type".to_owned(), "text/html".to_owned())];
                response = HttpResponse { status, headers, body };
                Delivery::Whole
            }
            _ => Delivery::Whole,
        };
        Self { response, delivery }
    }
}

pub(super) fn plain(status: u16, text: &str) -> HttpResponse {
    let headers = vec![("content-type".to_owned(), "text/plain; charset=utf-8".to_owned())];
    HttpResponse { status, headers, body: text.as_bytes().to_vec() }
}
