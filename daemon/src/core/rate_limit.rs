//! Rate limit as a token bucket.

use std::time::Duration;

/// Rate limit as a token bucket: `burst` tokens at once, then one for each `refill`.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    burst: u32,
    refill: Duration,
    tokens: u32,
    /// Start of the time after which the next token is added.
    since: Duration,
}

impl TokenBucket {
    /// Full token bucket of `burst` tokens that gains one for each `refill`.
    pub fn new(burst: u32, refill: Duration) -> Self {
        Self { burst, refill, tokens: burst, since: Duration::ZERO }
    }

    /// Takes a token from the bucket; an error is the time until there is one. `now` is of any clock that never goes
    /// back.
    pub fn take(&mut self, now: Duration) -> Result<(), Duration> {
        self.refill_until(now);
        if self.tokens == 0 {
            return Err((self.since + self.refill).saturating_sub(now));
        }
        self.tokens -= 1;
        Ok(())
    }

    fn refill_until(&mut self, now: Duration) {
        while self.tokens < self.burst && now >= self.since + self.refill {
            self.tokens += 1;
            self.since += self.refill;
        }
        if self.tokens == self.burst {
            self.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: Duration = Duration::from_secs(3600);

    proptest! {
    #[test]
    fn bucket_gives_at_most_burst_and_one_per_refill(waits in proptest::collection::vec(0u64..4000, 1..60)) {
        let mut bucket = TokenBucket::new(8, HOUR);
        let (mut now, mut taken) = (Duration::ZERO, 0u64);
        for wait in waits {
            now += Duration::from_secs(wait);
            match bucket.take(now) {
                Ok(()) => taken += 1,
                Err(wait) => {
                    prop_assert!(wait > Duration::ZERO && wait <= HOUR);
                    prop_assert!(bucket.clone().take(now + wait).is_ok());
                }
            }
            prop_assert!(taken <= 8 + now.as_secs() / 3600);
        }
    }
    }
}
