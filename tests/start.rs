//! Starting and stopping as an operator sees it: what a process says, and with which code it ends.

mod start_cases {
    mod addresses;
    mod backup;
    mod config;
    mod ops_port;
    mod process;
    mod reload;
    mod schema;
    mod servers;
    mod streams;
}

/// The program under test.
const ROOKERY: &str = env!("CARGO_BIN_EXE_rookery");
