//! `ringfence gateway` in front of real API servers.

mod attacks;
mod fixture;
mod http2;
mod kubectl;
