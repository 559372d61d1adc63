//! The cluster's admission rules for other policy engines.
//!
//! The rules stand once, in the admission policies of `templates/manifests/cluster`. Each module here turns these
//! objects, as they are rendered for a cluster, into the objects of one engine. The admission policies themselves stay in
//! the cluster behind the engine.

pub mod webhook;
