//! Waits of fractions of a millisecond: tokio's timers count in whole ones. The server's lane of commits
//! and the load test's sends are paced by them.

use std::time::Duration;

/// A timer for one pause at a time.
#[derive(Debug)]
pub struct Pauses {
    /// None where the system has no such timer, or no descriptor is left for it.
    #[cfg(target_os = "linux")]
    fine: Option<fine::Timer>,
}

impl Pauses {
    /// Only within a runtime.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "outside of a runtime it panics")]
    pub fn new() -> Self {
        Self {
            #[cfg(target_os = "linux")]
            fine: fine::Timer::new()
                .inspect_err(|why| tracing::warn!(%why, "no fine timer: pauses are longer"))
                .ok(),
        }
    }

    /// Waits for so long; without a fine timer up to a millisecond or two longer.
    pub async fn make(&self, pause: Duration) {
        #[cfg(target_os = "linux")]
        if let Some(timer) = &self.fine
            && timer.wait(pause).await.is_ok()
        {
            return;
        }
        tokio::time::sleep(pause).await;
    }
}

#[cfg(target_os = "linux")]
mod fine {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    /// A timer of the kernel that becomes readable when it has run out (timerfd_create(2)).
    #[derive(Debug)]
    pub(super) struct Timer(AsyncFd<OwnedFd>);

    impl Timer {
        #[expect(
            deprecated,
            reason = "unsound for who changes the descriptor it gives, which an OwnedFd does not; \
                      what is to be used instead is unsafe"
        )]
        pub(super) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            AsyncFd::with_interest(timer, Interest::READABLE).map(Self)
        }

        pub(super) async fn wait(&self, time: Duration) -> io::Result<()> {
            // A time of nothing would stop the timer, and nobody would be woken.
            let time = time.max(Duration::from_nanos(1));
            let spec = Itimerspec {
                it_interval: Timespec {
                    tv_sec: 0,
                    tv_nsec: 0,
                },
                it_value: Timespec::try_from(time).map_err(io::Error::other)?,
            };
            timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &spec)?;
            loop {
                let mut ready = self.0.readable().await?;
                let mut times = [0; 8];
                // How often it ran out; reading that makes it wait for the next time.
                let read = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut times)?));
                if let Ok(read) = read {
                    ready.clear_ready();
                    return read.map(drop);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn a_pause_is_not_cut_short_and_can_be_had_again() {
        let coarse = Pauses {
            #[cfg(target_os = "linux")]
            fine: None,
        };
        let fine = Pauses::new();
        #[cfg(target_os = "linux")]
        assert!(fine.fine.is_some());
        for pauses in [fine, coarse] {
            for micros in [0, 200, 600, 2_000, 200] {
                let (pause, begun) = (Duration::from_micros(micros), Instant::now());
                pauses.make(pause).await;
                assert!(begun.elapsed() >= pause, "{micros} µs, {pauses:?}");
            }
        }
    }
}
