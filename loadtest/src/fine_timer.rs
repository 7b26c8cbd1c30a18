//! Sleeping to within some 50 µs: the runtime's own timers only know whole milliseconds, which would count
//! as the broker's latency.

#[cfg(target_os = "linux")]
pub(crate) use linux::FineTimer;

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::os::fd::{AsFd, AsRawFd, RawFd};
    use std::time::Instant;

    use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
    use tokio::io::unix::AsyncFd;

    pub(crate) struct FineTimer(AsyncFd<Timer>);

    impl FineTimer {
        pub(crate) fn new() -> io::Result<Self> {
            let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
            let timer = Timer(TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?);
            #[expect(
                deprecated,
                reason = "the timer stays open while registered; what replaces it is unsafe"
            )]
            let registered = AsyncFd::new(timer)?;
            Ok(Self(registered))
        }

        /// One sleeper at a time.
        pub(crate) async fn sleep_until(&self, at: Instant) {
            let wait = at.saturating_duration_since(Instant::now());
            // A timer set to zero is switched off.
            if wait.is_zero() {
                return;
            }
            let timer = &self.0.get_ref().0;
            let set = timer.set(Expiration::OneShot(wait.into()), TimerSetTimeFlags::empty());
            set.expect("a duration is a valid time");
            // A sleep that was given up may have left the timer ready.
            while Instant::now() < at {
                let mut ready = self.0.readable().await.expect("the runtime is alive: it polls this");
                // Reading only resets it; how often it has expired is of no interest.
                let _ = timer.wait();
                ready.clear_ready();
            }
        }
    }

    struct Timer(TimerFd);

    impl AsRawFd for Timer {
        fn as_raw_fd(&self) -> RawFd {
            self.0.as_fd().as_raw_fd()
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) use elsewhere::FineTimer;

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use std::io;
    use std::time::Instant;

    pub(crate) struct FineTimer;

    impl FineTimer {
        pub(crate) fn new() -> io::Result<Self> {
            Ok(Self)
        }

        pub(crate) async fn sleep_until(&self, at: Instant) {
            tokio::time::sleep_until(at.into()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[tokio::test]
    async fn a_sleep_never_ends_early() {
        let timer = FineTimer::new().expect("a timer");
        for micros in [0, 50, 300, 5_000] {
            let at = Instant::now() + Duration::from_micros(micros);
            timer.sleep_until(at).await;
            assert!(Instant::now() >= at);
        }
    }
}
