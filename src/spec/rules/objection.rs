//! Objections to a profile.

use crate::spec::control::Control;
use crate::spec::error::Code;

/// An objection to a profile's settings.
#[derive(Debug)]
pub struct Objection {
    pub verdict: Verdict,
    /// The settings that it is about. The most likely mistake is first.
    pub at: Vec<Vec<String>>,
    pub message: String,
    pub help: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The setting weakens a control and needs a waiver.
    Weakens(Control),
    /// No waiver can allow the setting.
    Refused(Code),
    /// The setting is allowed, with a warning.
    Noted,
}

pub(super) struct Objections(pub Vec<Objection>);

impl Objections {
    pub fn add<P: AsRef<str>>(&mut self, verdict: Verdict, at: &[P], message: String, help: &str) {
        let at = at.iter().map(|path| path.as_ref().split('.').map(str::to_owned).collect()).collect();
        self.0.push(Objection { verdict, at, message, help: help.to_owned() });
    }

    pub fn refuse<P: AsRef<str>>(&mut self, at: &[P], message: String, help: &str) {
        self.add(Verdict::Refused(Code::BadValue), at, message, help);
    }

    pub fn weakens<P: AsRef<str>>(&mut self, control: Control, at: &[P], message: String, help: &str) {
        self.add(Verdict::Weakens(control), at, message, help);
    }

    /// For keys that hold dots themselves.
    pub fn at_key(&mut self, verdict: Verdict, section: &[&str], key: &str, message: String, help: &str) {
        let path = section.iter().chain([&key]).map(|s| (*s).to_owned()).collect();
        self.0.push(Objection { verdict, at: vec![path], message, help: help.to_owned() });
    }
}
