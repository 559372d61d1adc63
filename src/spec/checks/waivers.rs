//! Weakened controls, and the waivers that allow them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::ToSpan;
use jiff::civil::Date;

use super::{Checker, Member};
use crate::spec::control::Control;
use crate::spec::error::{Code, SpecError};
use crate::spec::rules::{self, Verdict};
use crate::spec::tree::{Mark, Node};
use crate::spec::words::quote;

/// The longest time for which a waiver is valid.
const WAIVER_YEARS: i16 = 1;

impl<'a> Checker<'a, '_> {
    /// Checks the waivers of a pool or tenant, and returns their controls.
    pub(super) fn waivers(&mut self, node: &Node, path: &str) -> BTreeSet<Control> {
        let mut seen: BTreeMap<Control, &Mark> = BTreeMap::new();
        for (i, waiver) in node.get("waivers").map(Node::items).unwrap_or_default().iter().enumerate() {
            let here = format!("{path}.waivers[{i}]");
            let reason = waiver.get("reason").and_then(Node::with_text);
            if let Some((reason, _)) = reason.filter(|(_, text)| text.trim().is_empty() && !text.is_empty()) {
                let (message, help) = ("the reason is empty".to_owned(), "write why the exception is acceptable");
                self.error(Code::Waiver, &format!("{here}.reason"), &reason.mark, message, help);
            }
            if let Some((until, text)) = waiver.get("until").and_then(Node::with_text) {
                self.until(until, text, &format!("{here}.until"));
            }
            let Some(control) = waiver.get("control") else { continue };
            let Some(id) = control.text().and_then(|t| t.parse::<Control>().ok()) else { continue };
            match seen.get(&id) {
                Some(first) => self.duplicate(&format!("{here}.control"), &control.mark, first, id.id()),
                None => {
                    seen.insert(id, &control.mark);
                }
            }
        }
        seen.into_keys().collect()
    }

    pub(super) fn until(&mut self, node: &Node, text: &str, path: &str) {
        let latest = self.today.saturating_add(WAIVER_YEARS.years());
        let is_iso = text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
        let Some(until) = text.parse::<Date>().ok().filter(|_| is_iso) else {
            let message = format!("{} is not a date", quote(text));
            self.error(Code::BadValue, path, &node.mark, message, format!("write YYYY-MM-DD, no later than {latest}"));
            return;
        };
        let (message, help) = if until < self.today {
            let help =
                format!("correct the setting that the waiver allows, or renew the waiver until {latest} at the latest");
            (format!("the waiver expired on {until}; today is {}", self.today), help)
        } else if until > latest {
            ("a waiver is valid for at most a year".to_owned(), format!("choose a date no later than {latest}"))
        } else {
            return;
        };
        self.error(Code::Waiver, path, &node.mark, message, help);
    }

    /// Reports what the rules object to in a member's profile.
    pub(super) fn objections(&mut self, member: &mut Member<'a>) {
        let settings = member.said.settings.as_ref();
        if let Some(node) = settings.and_then(|s| s.at(&["cluster", "kubernetesVersion"])) {
            let path = format!("{}.overrides.cluster.kubernetesVersion", member.said.path);
            if node.mark.is_in(self.root.mark.source()) {
                self.version(node, &path);
            }
        }
        let (Some(profile), Some(loaded)) = (&member.profile, member.loaded) else { return };
        let Some(tier) = &loaded.profile else { return };
        let tiers = self.tiers.clone();
        let of_tier = tiers.get(loaded.name.as_str()).map(Vec::as_slice).unwrap_or_default();
        let own = (!Arc::ptr_eq(profile, tier)).then(|| rules::check(profile, tier));
        for objection in own.as_deref().unwrap_or(of_tier) {
            let place = member.said.place(&objection.at);
            let (message, help) = (objection.message.clone(), objection.help.clone());
            let (code, help) = match objection.verdict {
                Verdict::Weakens(control) => {
                    member.used.insert(control);
                    if member.waived.contains(&control) {
                        continue;
                    }
                    let until = self.today.saturating_add(6.months());
                    let waiver = format!("{{control: {control}, reason: …, until: {until}}}");
                    let help = format!("{help}; or add `- {waiver}` under `{}.waivers`", member.said.path);
                    (Code::WeakenedControl, help)
                }
                // A mistake in the tier itself is reported once, at its own place, by `profiles`.
                Verdict::Refused(_) if of_tier.iter().any(|o| o.message == message) => continue,
                Verdict::Refused(code) => (code, help),
                Verdict::Noted => {
                    let warning = place.error(Code::BadValue, message).help(help);
                    self.findings.warn(warning);
                    continue;
                }
            };
            let message = match objection.verdict {
                Verdict::Weakens(control) => format!("{message} ({control}, {})", control.title()),
                _ => message,
            };
            self.findings.error(place.error(code, message).help(help));
        }
    }

    /// Reports what no waiver can allow, at its place in the profile itself.
    pub(super) fn profiles(&mut self) {
        let tiers = self.tiers.clone();
        for loaded in self.profiles.iter() {
            for objection in tiers.get(loaded.name.as_str()).into_iter().flatten() {
                let Verdict::Refused(code) = objection.verdict else { continue };
                let Some(at) = objection.at.first() else { continue };
                let mark = &loaded.settings.nearest(at).mark;
                self.error(code, &at.join("."), mark, objection.message.clone(), objection.help.clone());
            }
            if let Some(version) = loaded.settings.at(&["cluster", "kubernetesVersion"]) {
                self.version(version, "cluster.kubernetesVersion");
            }
        }
    }

    pub(super) fn needless_waivers(&mut self, member: &Member<'a>) {
        if member.profile.is_none() {
            return;
        }
        for (i, waiver) in member.node.get("waivers").map(Node::items).unwrap_or_default().iter().enumerate() {
            let Some(control) = waiver.get("control") else { continue };
            let Some(id) = control.text().and_then(|t| t.parse::<Control>().ok()) else { continue };
            if !member.used.contains(&id) {
                let path = format!("{}.waivers[{i}]", member.said.path);
                let message = format!("{} doesn't weaken {id}, so its waiver has no effect", member.what);
                let warning = SpecError::new(Code::Waiver, path, &control.mark, message);
                self.findings.warn(warning.help("remove the waiver, so that it can't allow a later mistake"));
            }
        }
    }
}
