//! Decoding of request bodies.
pub mod protobuf;
