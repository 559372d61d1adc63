//! The settings of one pool or tenant, and their places in the spec or in a profile.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::{Code, SpecError};
use super::profile;
use super::settings::IsolationModel;
use super::tree::{Mark, Node};
use super::words::join;

/// The settings of one pool or tenant, with their places in the spec and in its profile.
#[derive(Clone, Debug)]
pub struct Said {
    pub node: Node,
    pub path: String,
    /// The place where its profile is named. If none is named, the place of its own name.
    pub anchor: Mark,
    pub anchor_path: String,
    pub isolation: Option<IsolationModel>,
    /// Its overrides that the tier allows.
    pub overrides: Option<Node>,
    /// The tier's own settings if nothing is overridden.
    pub settings: Option<Arc<Node>>,
}

/// The path of a VPC's endpoints. It is the same in a pool and in a profile.
pub const ENDPOINTS: [&str; 2] = ["network", "endpoints"];

/// The place at which an error about a member's profile is shown.
pub struct Place {
    mark: Mark,
    path: String,
    /// The line in the profile, if the value comes from there.
    pub related: Option<Mark>,
}

impl Place {
    pub fn error(&self, code: Code, message: String) -> SpecError {
        let error = SpecError::new(code, self.path.clone(), &self.mark, message);
        match &self.related {
            Some(related) => error.related(related, "the value comes from the profile"),
            None => error,
        }
    }
}

impl Said {
    /// An error without a message, at the place of the setting. If that isn't known, the place of the nearest section
    /// around it. `endpoints` are the tenancy's.
    pub fn error(&self, setting: &[&str], endpoints: Option<&Node>) -> SpecError {
        let mut places: BTreeMap<Vec<String>, Place> = BTreeMap::new();
        self.places(endpoints, &mut |setting, place| drop(places.insert(setting, place)));
        let steps = |n: usize| setting.iter().take(n).map(|step| (*step).to_owned()).collect::<Vec<_>>();
        let known = (1..=setting.len()).rev().find_map(|n| places.remove(&steps(n)));
        known.unwrap_or_else(|| self.whole()).error(Code::NotOffered, String::new())
    }

    fn whole(&self) -> Place {
        Place { mark: self.anchor.clone(), path: self.anchor_path.clone(), related: None }
    }

    /// Calls `tell` for each setting that only AWS can judge, with its path in the profile and its place. The last step
    /// of the path of a list's entry is the entry's value.
    fn places(&self, endpoints: Option<&Node>, tell: &mut impl FnMut(Vec<String>, Place)) {
        let path = |steps: &[&str]| steps.iter().map(|step| (*step).to_owned()).collect::<Vec<_>>();
        let Some((settings, isolation)) = self.settings.as_ref().zip(self.isolation) else { return };
        for section in ["nodes", "systemNodes"].into_iter().filter(|section| profile::uses(isolation, section)) {
            let types = settings.at(&[section, "instanceTypes"]).map(Node::items).unwrap_or_default();
            for (i, name) in types.iter().enumerate().filter_map(|(i, node)| Some((i, node.text()?))) {
                let at = path(&[section, "instanceTypes", &i.to_string()]);
                tell(path(&[section, "instanceTypes", name]), self.place(&[at]));
            }
        }
        for addon in settings.get("addons").map(Node::entries).unwrap_or_default() {
            let at = path(&["addons", &addon.key, "version"]);
            tell(at.clone(), self.place(&[at]));
        }
        if let Some((endpoints, at)) = self.effective(&ENDPOINTS, endpoints) {
            for (i, node) in endpoints.items().iter().enumerate() {
                let Some(service) = node.text() else { continue };
                tell(path(&["network", "endpoints", service]), self.place_of(node, format!("{at}[{i}]")));
            }
        }
    }

    /// The place of the first of these settings that the spec itself sets. If it sets none, the place where the tier is
    /// named.
    pub fn place(&self, at: &[Vec<String>]) -> Place {
        let path = |steps: &[String]| {
            steps.iter().fold(format!("{}.overrides", self.path), |path, step| match step.parse::<usize>() {
                Ok(index) => format!("{path}[{index}]"),
                Err(_) => join(&path, step),
            })
        };
        for steps in at {
            if let Some(node) = self.overrides.as_ref().and_then(|o| o.at(steps)) {
                return Place { mark: node.mark.clone(), path: path(steps), related: None };
            }
        }
        let node = at.first().zip(self.settings.as_ref()).map(|(steps, settings)| settings.nearest(steps));
        match node {
            Some(node) if node.mark.is_in(self.node.mark.source()) => {
                Place { mark: node.mark.clone(), path: path(at.first().map_or(&[], Vec::as_slice)), related: None }
            }
            node => Place {
                mark: self.anchor.clone(),
                path: self.anchor_path.clone(),
                related: node.map(|n| n.mark.clone()),
            },
        }
    }

    /// The effective setting of a cluster, and its path. Precedence: the pool's own setting, the profile's (with a
    /// silo's overrides), the tenancy's.
    pub fn effective<'n>(&'n self, at: &[&str], tenancy: Option<&'n Node>) -> Option<(&'n Node, String)> {
        let path = at.join(".");
        let in_profile: Vec<&str> =
            if at.len() == 1 { ["cluster"].iter().chain(at).copied().collect() } else { at.to_vec() };
        let own = self.node.at(at).map(|n| (n, format!("{}.{path}", self.path)));
        let profile = || {
            let node = self.settings.as_ref()?.at(&in_profile)?;
            Some((node, format!("{}.overrides.{}", self.path, in_profile.join("."))))
        };
        own.or_else(profile).or_else(|| Some((tenancy?, format!("spec.{path}"))))
    }

    /// The place of a value that may be in the spec or in the member's profile.
    pub fn place_of(&self, node: &Node, path: String) -> Place {
        if node.mark.is_in(self.node.mark.source()) {
            return Place { mark: node.mark.clone(), path, related: None };
        }
        Place { mark: self.anchor.clone(), path: self.anchor_path.clone(), related: Some(node.mark.clone()) }
    }
}
