//! What every bus promises, asked of both, and what the one over Redis does when Redis fails.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "bus_cases/bench.rs"]
mod bench;
#[path = "bus_cases/bounds.rs"]
mod bounds;
#[path = "bus_cases/contract.rs"]
mod contract;
#[path = "bus_cases/faults.rs"]
mod faults;
#[path = "bus_cases/links.rs"]
mod links;
#[path = "bus_cases/neighbours.rs"]
mod neighbours;
#[path = "bus_cases/peers.rs"]
mod peers;
#[path = "bus_cases/sentinels.rs"]
mod sentinels;
#[path = "bus_cases/tls.rs"]
mod tls;
