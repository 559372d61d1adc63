//! One run at a time: a lease for each tenancy and region, kept in SSM
//! parameters `/ringfence/TENANCY/REGION/lock/GENERATION`.
//!
//! A parameter is created without overwriting. If two runs create the same
//! generation, one of them fails. That is the compare-and-set, and the
//! generation is the fencing token. The holder overwrites its own generation as
//! a heartbeat, and no other run ever writes to it. A run that takes over
//! creates the next generation and deletes the old ones. The former holder's
//! next heartbeat then fails, because a PutParameter that overwrites names no
//! type and so can't create a parameter.
//!
//! The clocks of two computers are never compared. A waiter takes over after it
//! has seen the same heartbeat for a whole lease. A lease starts when the last
//! successful heartbeat was sent. The holder begins no write when less than a
//! quarter of its lease is left, and gives up a write that takes longer than
//! the rest of the lease: the [fence](super::fence) asks before each attempt. A
//! request that was sent before and is delayed in the network can't be called
//! back.

mod held;
mod lease;
mod record;
mod store;
mod take;
mod vigil;

pub use held::Lock;
pub use record::{LEASE, Record, Seen};
pub use store::Store;
