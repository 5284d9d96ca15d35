//! Who may open a socket, decided before any work is done for it: a reconnect storm is answered
//! with cheap refusals that say when to come back.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dashmap::DashMap;

use super::listener::Place;
use super::rate_limit::TokenBucket;
use crate::metrics::Level;

/// Sockets whose client has yet to show who it is: they cost a descriptor each and nobody answers
/// for them. More of them than show it within a second are no clients of ours.
const STRANGERS_MAX: usize = 2_000;
/// The same of one address, so that one of them does not keep all others out.
const STRANGERS_PER_ADDRESS: usize = 200;
/// Sockets that are being opened: known, and not yet told `ready`. What waits for the database at
/// once; beyond it, coming back a second later is quicker than waiting.
const OPENING_MAX: usize = 4_000;

/// Limits of one node, from the configuration.
#[derive(Clone, Debug)]
pub struct AdmissionOptions {
    pub sockets: usize,
    pub sockets_per_ip: usize,
    pub upgrades_per_second: u32,
    /// False turns the bucket and all caps but the one of the node off, for load tests.
    pub rates_enabled: bool,
}

/// Why a socket was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Too many upgrades a second.
    Rate,
    /// Too many sockets are being opened.
    Opening,
    /// This node has all the sockets it may have.
    Full,
    /// This address has all the sockets it may have.
    Address,
}

impl Refused {
    /// When to come back.
    #[must_use]
    pub fn retry_after(self) -> Duration {
        match self {
            Self::Rate | Self::Opening => Duration::from_secs(1),
            Self::Full | Self::Address => Duration::from_secs(5),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Admission {
    options: AdmissionOptions,
    bucket: Mutex<TokenBucket>,
    sockets: AtomicUsize,
    opening: AtomicUsize,
    strangers: AtomicUsize,
    by_address: DashMap<IpAddr, OfAddress>,
}

/// See [`Admission::levels`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionLevels {
    pub sockets: Level,
    pub opening: Level,
    pub strangers: Level,
}

/// The sockets of one address.
#[derive(Debug, Default)]
struct OfAddress {
    sockets: usize,
    strangers: usize,
}

impl Admission {
    #[must_use]
    pub fn new(options: AdmissionOptions) -> Arc<Self> {
        let rate = options.upgrades_per_second;
        let bucket = Mutex::new(TokenBucket::new(rate, rate, Instant::now()));
        Arc::new(Self {
            options,
            bucket,
            sockets: AtomicUsize::new(0),
            opening: AtomicUsize::new(0),
            strangers: AtomicUsize::new(0),
            by_address: DashMap::new(),
        })
    }

    /// Admits one socket from `address`, for as long as the permit lives. `known`: its client has
    /// shown a token, which is still to be checked.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(self: &Arc<Self>, address: IpAddr, known: bool) -> Result<Permit, Refused> {
        if self.options.rates_enabled {
            let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
            bucket.take(Instant::now()).map_err(|_| Refused::Rate)?;
        }
        // Given back by its drop, as far as it got.
        let mut permit = Permit {
            admission: Arc::clone(self),
            address: None,
            stage: Stage::Open,
            place: None,
        };
        let before = self.sockets.fetch_add(1, Ordering::AcqRel);
        if before >= self.options.sockets {
            return Err(Refused::Full);
        }
        if self.options.rates_enabled {
            permit.count_address(network_of(address))?;
            permit.enter(if known {
                Stage::Opening
            } else {
                Stage::Stranger
            })?;
        }
        Ok(permit)
    }

    /// How many sockets there are, how many of them are being opened, and how many have yet to show
    /// who they are.
    #[must_use]
    pub fn levels(&self) -> AdmissionLevels {
        let level = |count: &AtomicUsize, capacity| Level {
            used: count.load(Ordering::Relaxed),
            capacity,
        };
        AdmissionLevels {
            sockets: level(&self.sockets, self.options.sockets),
            opening: level(&self.opening, OPENING_MAX),
            strangers: level(&self.strangers, STRANGERS_MAX),
        }
    }

    /// Whether this node has all the sockets it may have.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.sockets.load(Ordering::Acquire) >= self.options.sockets
    }
}

/// How far a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Stranger,
    Opening,
    Open,
}

/// One admitted socket.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    address: Option<IpAddr>,
    stage: Stage,
    place: Option<Place>,
}

impl Permit {
    /// The socket is a connection, too: it keeps its place for as long.
    pub fn keep(&mut self, place: Place) {
        self.place = Some(place);
    }

    /// The client has shown who it is.
    ///
    /// # Errors
    /// Too many sockets are being opened.
    pub fn known(&mut self) -> Result<(), Refused> {
        match self.stage {
            Stage::Stranger => self.enter(Stage::Opening),
            Stage::Opening | Stage::Open => Ok(()),
        }
    }

    /// The socket works.
    pub fn opened(&mut self) {
        self.leave();
    }

    /// Whether the socket opens is decided: nobody waits for the database any more. One who did not
    /// show who it is remains a stranger until it is gone.
    pub fn decided(&mut self) {
        if self.stage == Stage::Opening {
            self.leave();
        }
    }

    fn count_address(&mut self, address: IpAddr) -> Result<(), Refused> {
        let mut of_address = self.admission.by_address.entry(address).or_default();
        if of_address.sockets >= self.admission.options.sockets_per_ip {
            return Err(Refused::Address);
        }
        of_address.sockets += 1;
        drop(of_address);
        self.address = Some(address);
        Ok(())
    }

    fn enter(&mut self, stage: Stage) -> Result<(), Refused> {
        self.leave();
        let admission = &self.admission;
        let (count, max) = match stage {
            Stage::Stranger => (&admission.strangers, STRANGERS_MAX),
            Stage::Opening => (&admission.opening, OPENING_MAX),
            Stage::Open => return Ok(()),
        };
        let before = count.fetch_add(1, Ordering::AcqRel);
        self.stage = stage;
        let of_address = match stage {
            Stage::Stranger => self.change_strangers(|count| *count += 1),
            Stage::Opening | Stage::Open => 0,
        };
        if before >= max || of_address > STRANGERS_PER_ADDRESS {
            self.leave();
            return Err(Refused::Opening);
        }
        Ok(())
    }

    fn leave(&mut self) {
        match std::mem::replace(&mut self.stage, Stage::Open) {
            Stage::Stranger => {
                self.admission.strangers.fetch_sub(1, Ordering::AcqRel);
                self.change_strangers(|count| *count -= 1);
            }
            Stage::Opening => {
                self.admission.opening.fetch_sub(1, Ordering::AcqRel);
            }
            Stage::Open => {}
        }
    }

    fn change_strangers(&self, change: impl FnOnce(&mut usize)) -> usize {
        let Some(address) = self.address else {
            return 0;
        };
        // There, since this socket of it is.
        let Some(mut of_address) = self.admission.by_address.get_mut(&address) else {
            return 0;
        };
        change(&mut of_address.strangers);
        of_address.strangers
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.leave();
        self.admission.sockets.fetch_sub(1, Ordering::AcqRel);
        let Some(address) = self.address else { return };
        self.admission
            .by_address
            .remove_if_mut(&address, |_, of_address| {
                of_address.sockets -= 1;
                of_address.sockets == 0
            });
    }
}

/// What counts as one client: an IPv4 address, or the /64 that an IPv6 client has to itself.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let network = v6.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> AdmissionOptions {
        AdmissionOptions {
            sockets: 3,
            sockets_per_ip: 2,
            upgrades_per_second: 100,
            rates_enabled: true,
        }
    }

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn caps_hold_and_permits_come_back() {
        let admission = Admission::new(options());
        let one = "2001:db8::1".parse().unwrap();
        let same_network = "2001:db8::2".parse().unwrap();
        let first = admission.admit(one, true).unwrap();
        let _second = admission.admit(same_network, true).unwrap();
        assert_eq!(admission.admit(one, true).unwrap_err(), Refused::Address);
        let _third = admission.admit(OTHER, true).unwrap();
        assert!(admission.is_full());
        assert_eq!(admission.admit(OTHER, true).unwrap_err(), Refused::Full);
        drop(first);
        assert!(admission.admit(one, true).is_ok());
        assert_eq!(
            admission.by_address.len(),
            2,
            "the last permit was given back"
        );
    }

    #[test]
    fn too_many_upgrades_a_second_are_refused() {
        let admission = Admission::new(AdmissionOptions {
            upgrades_per_second: 1,
            ..options()
        });
        assert!(admission.admit(ONE, true).is_ok());
        assert_eq!(admission.admit(ONE, true).unwrap_err(), Refused::Rate);
    }

    #[test]
    fn those_who_do_not_say_who_they_are_keep_nobody_else_out() {
        let admission = Admission::new(AdmissionOptions {
            sockets: 100_000,
            sockets_per_ip: 100_000,
            upgrades_per_second: 100_000,
            rates_enabled: true,
        });
        let admit = |address, known| admission.admit(address, known);
        let mut strangers: Vec<_> = (0..STRANGERS_PER_ADDRESS)
            .map(|_| admit(ONE, false).unwrap())
            .collect();
        assert_eq!(admit(ONE, false).unwrap_err(), Refused::Opening);
        assert!(admit(ONE, true).is_ok(), "one with a token");
        assert!(admit(OTHER, false).is_ok(), "another address");
        strangers[0].known().unwrap();
        strangers.push(admit(ONE, false).unwrap());
        let opening: Vec<_> = (1..OPENING_MAX)
            .map(|_| admit(OTHER, true).unwrap())
            .collect();
        assert_eq!(admit(OTHER, true).unwrap_err(), Refused::Opening);
        assert_eq!(strangers[1].known().unwrap_err(), Refused::Opening);
        strangers[0].opened();
        let mut refused = admit(OTHER, true).unwrap();
        assert_eq!(admit(OTHER, true).unwrap_err(), Refused::Opening);
        refused.decided();
        assert!(
            admit(OTHER, true).is_ok(),
            "while the other is being closed"
        );
        strangers[2].decided();
        let count = admission.strangers.load(Ordering::Acquire);
        assert_eq!(count, STRANGERS_PER_ADDRESS - 1, "still one of them");
        drop((opening, strangers, refused));
        let left = [&admission.sockets, &admission.opening, &admission.strangers];
        assert_eq!(left.map(|count| count.load(Ordering::Acquire)), [0; 3]);
        assert!(admission.by_address.is_empty());
    }
}
