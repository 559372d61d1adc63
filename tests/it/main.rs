//! One binary for all integration tests, because each binary must link the AWS
//! SDK, which takes minutes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_macros)]

mod budgets;
mod check;
mod cli;
mod cluster;
mod contract;
mod engines;
mod fuzz;
mod gateway;
mod layering;
mod makespan;
mod manifest;
mod models;
mod new_kind;
mod permissions;
mod reliability;
mod roles;
mod support;
mod walks;
