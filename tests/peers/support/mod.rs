//! What the drills share: processes that die with their owner, a client that tells failures apart, load, peers.

pub mod account;
pub mod balancer;
pub mod client;
pub mod curl;
pub mod faulty;
pub mod hammer;
#[allow(dead_code, reason = "the end-to-end tests use the rest of it")]
#[path = "../../it/support/http2.rs"]
pub mod http2;
pub mod load;
pub mod nginx;
pub mod process;
pub mod python;
pub mod scene;
pub mod slow;
pub mod streams;
pub mod successors;
pub mod teal;

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// True when the full form is asked for.
pub fn full() -> bool {
    std::env::var("TEAL_DRILL").is_ok_and(|form| form == "full")
}

/// The one of two values that the form asks for.
pub fn pick<T>(short: T, full_form: T) -> T {
    if full() { full_form } else { short }
}

/// A loopback address that nobody listens on, below the range that outgoing connections take their ports from.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = (std::process::id() * 37 % 11_000) as u16;
    for _ in 0..11_000 {
        let port = 20_000 + (first + NEXT.fetch_add(1, Relaxed)) % 11_000;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port between 20000 and 31000");
}

/// Asks every two milliseconds until there is an answer; fails after `limit`.
pub fn until<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begin.elapsed() < limit, "not within {limit:?}: {what}");
        pace(Duration::from_millis(2));
    }
}

/// The value that a share `q` (0 to 1) of `values` does not exceed; zero if there are none.
pub fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() as f64 * q).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// Milliseconds with their fraction.
pub fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Waits as a part of what is played: the gap between two requests, a slow answer. Never for something to happen.
pub fn pace(time: std::time::Duration) {
    std::thread::sleep(time);
}
