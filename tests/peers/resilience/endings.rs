//! The end of a process under load, over HTTP/1.1 and HTTP/2, of our own and of others' making: nothing is lost.
//!
//! A process may end because another one takes over its sockets (`teal upgrade`), or be told to (SIGTERM). In that case,
//! as in a rolling restart, a second process is ready before the first one is told to end, and a balancer sends new
//! connections there once the readiness of the first one fails. So no tool has an excuse to count a failure.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::account::failures;
use crate::support::balancer::Balancer;
use crate::support::client::Client;
use crate::support::hammer::Hammer;
use crate::support::load::Load;
use crate::support::scene::Scene;
use crate::support::streams::Streams;
use crate::support::successors::Successors;
use crate::support::teal::Teal;
use crate::support::{millis, pace, pick, quantile, until};

/// From the signal to the end of accepting.
const ENDING: &str = "shutdown: { delay: 200ms, grace: 10s }";

/// Connections of h2load.
const H2LOAD: u32 = 2;

#[test]
fn sigterm_under_load_costs_no_request() {
    let rounds = pick(2, 20);
    let mut scene = Scene::ending(ENDING);
    let balancer = Balancer::start(scene.teal.listen);
    let loads = Loads::start(&scene, balancer.address, Duration::from_millis(900) * rounds);
    for _ in 0..rounds {
        pace(Duration::from_millis(400));
        let next = scene.teal.successor();
        let last = std::mem::replace(&mut scene.teal, next);
        end(last, &scene.teal, &balancer);
    }
    loads.none_failed(scene, rounds, &format!("{rounds} processes end by SIGTERM"));
}

/// No balancer here: the sockets stay, the processes behind them change.
#[test]
fn upgrades_under_load_cost_no_request() {
    let rounds = pick(2, 20);
    let scene = Scene::ending("");
    let loads = Loads::start(&scene, scene.teal.listen, Duration::from_millis(900) * rounds);
    let (mut successors, mut took) = (Successors::default(), Vec::new());
    for _ in 0..rounds {
        pace(Duration::from_millis(400));
        took.push(millis(successors.upgrade(&scene.teal)));
    }
    let what = format!("{rounds} upgrades (order to answer p50 {:.0} ms)", quantile(&took, 0.5));
    loads.none_failed(scene, rounds, &what);
}

/// All loads there are, at one address.
struct Loads {
    http1: Load,
    http2: Streams,
    wrk: Hammer,
    h2load: Hammer,
}

impl Loads {
    /// For about `time`: h2load has to be told beforehand.
    fn start(scene: &Scene, listen: SocketAddr, time: Duration) -> Loads {
        Loads {
            http1: Scene::load_at(listen, 300),
            http2: Streams::start(listen, 3, 10, Duration::from_millis(100)),
            wrk: Hammer::wrk(scene.folder(), listen, 4),
            h2load: Hammer::h2load(scene.folder(), listen, H2LOAD, time + Duration::from_secs(2)),
        }
    }

    fn none_failed(self, scene: Scene, endings: u32, what: &str) {
        pace(Duration::from_millis(400));
        let (by_wrk, wrk_text) = self.wrk.stop();
        let (of_streams, resent) = self.http2.stop();
        let mut records = self.http1.stop();
        let (by_h2load, h2load_text) = self.h2load.stop();
        let answered = records.len();
        let failed = format!("{}{}", failures(&records), failures(&of_streams));
        println!(
            "{what} under load: {answered} requests of HTTP/1.1, {} of HTTP/2 ({resent} sent again that a GOAWAY had left \
             out), {} of wrk, {} of h2load; failed:{}; {by_wrk:?}; {by_h2load:?}",
            of_streams.len(),
            by_wrk.answered,
            by_h2load.answered,
            if failed.is_empty() { " none" } else { &failed },
        );
        records.extend(of_streams);
        let account = scene.close(&records);
        let felt = [account.gets_failed, account.posts_failed, account.posts_twice, account.posts_lost];
        assert_eq!(felt, [0; 4], "{account}");
        assert_eq!((by_wrk.wrong, by_wrk.refused, by_wrk.broken), (0, 0, 0), "{wrk_text}");
        assert_eq!(by_h2load.wrong, 0, "{h2load_text}");
        // h2load may have queued its next request when it reads a GOAWAY: that one never leaves it, and counts as errored.
        assert!(by_h2load.broken <= u64::from(endings * H2LOAD), "{h2load_text}");
    }
}

/// SIGTERM: readiness fails first, the balancer looks away, and the process ends by itself, with 0.
fn end(mut teal: Teal, next: &Teal, balancer: &Balancer) {
    let mut probe = Client::connect(teal.admin).unwrap();
    teal.process().signal("TERM");
    until("/readyz turns 503", Duration::from_secs(2), || (probe.get("/readyz").ok()?.status == 503).then_some(()));
    balancer.turn_to(next.listen);
    let status = teal.process().wait(Duration::from_secs(15));
    assert_eq!(status.code(), Some(0), "{}", teal.log());
}
