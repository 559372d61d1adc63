//! `ringfence gateway` in front of real API servers.

mod admission;
mod attacks;
mod configuration;
mod fixture;
mod hostile;
mod http2;
mod kubectl;
mod operations;
mod stub;
mod traces;
