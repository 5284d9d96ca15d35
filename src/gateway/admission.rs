//! Who may open a socket, decided before any work is done for it: a reconnect storm is answered
//! with cheap refusals that say when to come back.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dashmap::DashMap;

use super::rate_limit::TokenBucket;

/// Limits of one node, from the configuration.
#[derive(Clone, Debug)]
pub struct AdmissionOptions {
    pub sockets: usize,
    pub sockets_per_ip: usize,
    pub upgrades_per_second: u32,
    /// False turns the bucket and the cap per address off, for load tests.
    pub rates_enabled: bool,
}

/// Why a socket was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Too many upgrades a second.
    Rate,
    /// This node, or this address, has all the sockets it may have.
    Full,
}

impl Refused {
    /// When to come back.
    #[must_use]
    pub fn retry_after(self) -> Duration {
        match self {
            Self::Rate => Duration::from_secs(1),
            Self::Full => Duration::from_secs(5),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Admission {
    options: AdmissionOptions,
    bucket: Mutex<TokenBucket>,
    sockets: AtomicUsize,
    by_address: DashMap<IpAddr, usize>,
}

impl Admission {
    #[must_use]
    pub fn new(options: AdmissionOptions) -> Arc<Self> {
        let rate = options.upgrades_per_second;
        let bucket = Mutex::new(TokenBucket::new(rate, rate, Instant::now()));
        let sockets = AtomicUsize::new(0);
        Arc::new(Self {
            options,
            bucket,
            sockets,
            by_address: DashMap::new(),
        })
    }

    /// Admits one socket from `address`, for as long as the permit lives.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Permit, Refused> {
        if self.options.rates_enabled {
            let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
            bucket.take(Instant::now()).map_err(|_| Refused::Rate)?;
        }
        if self.sockets.fetch_add(1, Ordering::AcqRel) >= self.options.sockets {
            self.sockets.fetch_sub(1, Ordering::AcqRel);
            return Err(Refused::Full);
        }
        let mut permit = Permit {
            admission: Arc::clone(self),
            address: None,
        };
        if self.options.rates_enabled {
            let address = network_of(address);
            let mut count = self.by_address.entry(address).or_insert(0);
            if *count >= self.options.sockets_per_ip {
                return Err(Refused::Full);
            }
            *count += 1;
            permit.address = Some(address);
        }
        Ok(permit)
    }

    /// Whether this node has all the sockets it may have.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.sockets.load(Ordering::Acquire) >= self.options.sockets
    }
}

/// One admitted socket.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    address: Option<IpAddr>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.sockets.fetch_sub(1, Ordering::AcqRel);
        let Some(address) = self.address else { return };
        self.admission
            .by_address
            .remove_if_mut(&address, |_, count| {
                *count -= 1;
                *count == 0
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

    #[test]
    fn caps_hold_and_permits_come_back() {
        let admission = Admission::new(options());
        let one = "2001:db8::1".parse().unwrap();
        let same_network = "2001:db8::2".parse().unwrap();
        let other = "192.0.2.1".parse().unwrap();
        let first = admission.admit(one).unwrap();
        let _second = admission.admit(same_network).unwrap();
        assert_eq!(admission.admit(one).unwrap_err(), Refused::Full);
        let _third = admission.admit(other).unwrap();
        assert!(admission.is_full());
        assert_eq!(admission.admit(other).unwrap_err(), Refused::Full);
        drop(first);
        assert!(admission.admit(one).is_ok());
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
        let address = "192.0.2.1".parse().unwrap();
        assert!(admission.admit(address).is_ok());
        assert_eq!(admission.admit(address).unwrap_err(), Refused::Rate);
    }
}
