//! The stage: the settings and the plan of the demo, and everything that runs during it.
//!
//! The figures are chosen so that [`RATE`] requests a second prove a healthy green in about fifteen seconds and
//! expose a broken one in well under a second. Each is explained where it stands.
//!
//! Invariant: what is started here is ended by [`Stage::end`], users first, so that nobody loses an answer.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use crate::app::{self, Running, StartError};
use crate::clock::{self, Micros};
use crate::config::settings::{
    AccessLog, Address, Admin, Client, Health, Listen, Pool, Resolver, Service, Settings, Shutdown, State, Timeouts,
};
use crate::demo::load::{Counts, Load};
use crate::demo::upstream::Upstreams;
use crate::domain::analysis::Policy;
use crate::domain::rescue;
use crate::domain::rollout::plan::{OnInconclusive, Plan, Step};
use crate::domain::split::Share;

/// The service's name.
pub const SERVICE: &str = "shop";
/// Requests a second: enough to prove 5 % of them healthy in seconds and to notice 5 % of hung ones among a quarter
/// of them in some hundred milliseconds; together with the proxy and the versions about a quarter of one core.
pub const RATE: f64 = 2_000.0;
/// Where the admin API answers if the port is free: where every other command looks for it.
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9900);
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Everything that runs.
pub struct Stage {
    /// The proxy.
    pub running: Running,
    /// The embedded versions.
    pub upstreams: Upstreams,
    /// The users.
    pub load: Load,
    /// When the load began.
    pub begun: Micros,
    /// The same by the wall clock, in milliseconds.
    pub begun_at: u64,
}

impl Stage {
    /// Starts the versions, the proxy in front of them, and the users with `rate` requests a second.
    ///
    /// # Errors
    /// When the proxy cannot start or the system refuses a socket or a thread.
    pub fn start(rate: f64) -> Result<Stage, StartError> {
        let upstreams = Upstreams::start()?;
        let running = match app::start(settings(&upstreams, ADMIN), None) {
            Err(StartError::Listen { address, .. }) if address == ADMIN.into() => {
                app::start(settings(&upstreams, ANY_PORT), None)?
            }
            started => started?,
        };
        let (begun, begun_at) = (clock::now(), clock::wall_millis());
        match Load::start(running.listen[0], rate) {
            Ok(load) => Ok(Stage { running, upstreams, load, begun, begun_at }),
            Err(error) => {
                running.shutdown();
                Err(error.into())
            }
        }
    }

    /// Ends everything; what the users saw, and how many requests reached green.
    pub fn end(self) -> (Counts, u64) {
        let counts = self.load.stop();
        self.running.shutdown();
        (counts, self.upstreams.green_requests())
    }
}

/// The plan: 5, 25, 50, 100 %, each but the last with an analysis.
///
/// The first step has 100 requests a second, so its proof of about 330 good ones takes three to four seconds, more
/// if one of them meets a stall; the others are proven long before their least time is over, which is there to be
/// watched.
pub fn plan() -> Plan {
    let weight = |percent: u16| Step::Weight(Share::from_basis_points(percent * 100).expect("at most 100%"));
    let analyze = |seconds| Step::Analyze { dwell: Duration::from_secs(seconds), deadline: None };
    let steps = vec![weight(5), analyze(5), weight(25), analyze(4), weight(50), analyze(4), weight(100)];
    Plan { steps, on_inconclusive: OnInconclusive::Hold }
}

fn settings(upstreams: &Upstreams, admin: SocketAddr) -> Settings {
    let pools = vec![pool("blue", &upstreams.blue), pool("green", &upstreams.green)];
    let service = Service {
        // Hung users get their 504 while the demo still runs. Ten times what the slowest healthy answer takes.
        timeouts: Timeouts { head: Duration::from_secs(3), ..Timeouts::default() },
        // Users of a green that hangs are not left to wait for it: twenty times what the slowest healthy answer takes.
        rescue: Some(rescue::Policy { after: Duration::from_secs(1), ..rescue::Policy::default() }),
        // A busy machine must not look like a dead endpoint.
        health: Health { timeout: Duration::from_secs(2), ..Health::default() },
        analysis: policy(),
        rollout: plan(),
        ..Service::new(SERVICE.to_owned(), pools)
    };
    Settings {
        listen: vec![Listen::plain(ANY_PORT)],
        admin: Some(Admin { listen: admin, token: None }),
        state: State::Ephemeral,
        workers: NonZeroUsize::new(2).expect("two is not zero"),
        access_log: AccessLog::Off,
        client: Client::default(),
        resolver: Resolver::default(),
        shutdown: Shutdown { grace: Duration::from_secs(1), ..Shutdown::default() },
        services: vec![service],
    }
}

/// How green is judged.
fn policy() -> Policy {
    Policy {
        // Some 330 answers without an error rule out 1 %, which is what the first step sees in a few seconds.
        approve_error_rate: 0.01,
        // With latencies as widely spread as these, 20 % at p99 would take minutes at 100 requests a second; and a
        // machine that stalls for 50 ms slows both pools alike, which speaks against approval past this mark only.
        approve_latency: 1.0,
        min_requests: 200,
        ..Policy::default()
    }
}

fn pool(name: &str, endpoints: &[SocketAddr]) -> Pool {
    let address = |at: &SocketAddr| Address::http(at.ip().to_string(), at.port());
    Pool::new(name, endpoints.iter().map(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_fits_into_half_a_minute_even_if_the_first_step_takes_twice_its_time() {
        let dwell = |step: &Step| if let Step::Analyze { dwell, .. } = step { *dwell } else { Duration::ZERO };
        let least: Duration = plan().steps.iter().map(dwell).sum();
        assert!(least >= Duration::from_secs(10) && least <= Duration::from_secs(15));
        let good_answers_needed = -policy().beta.ln() / (0.999_f64 / 0.99).ln();
        assert!(good_answers_needed / (RATE * 0.05) < 4.0);
    }
}
