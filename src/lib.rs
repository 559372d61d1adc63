//! ringfence
pub mod engine;
pub mod aws;
pub mod kinds;
