//! Accepting: who serves a fresh connection, how many there may be, and what happens when descriptors run out.

use std::net::{SocketAddr, TcpStream};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::support::client::Client;
use super::support::pace;
use super::support::process::Process;
use super::support::teal::{Teal, shop_text};
use super::support::upstream::Upstream;

/// Requests that each client of a test sends.
const ROUNDS: u64 = 20;
/// Well below the time that a connection counts as busy. What took longer, on a busy machine, is played again.
const IN_TIME: Duration = Duration::from_millis(500);

/// A configuration with one pool and limits of client connections.
fn text(blue: &Upstream, client: &str) -> String {
    shop_text("none", &[("blue", &blue.url())], "health: off").replace("services:", &format!("{client}\nservices:"))
}

/// The value of one series.
fn metric(admin: &mut Client, series: &str) -> u64 {
    admin.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let text = admin.answer().expect("an answer").body;
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse::<f64>().unwrap() as u64
}

/// A family's values, by worker.
fn by_worker(admin: &mut Client, family: &str) -> [u64; 2] {
    [0, 1].map(|worker| metric(admin, &format!("{family}{{worker=\"{worker}\"}}")))
}

fn requests(admin: &mut Client) -> [u64; 2] {
    by_worker(admin, "teal_worker_requests_total")
}

/// Plays a scene, each time after `ready`, until it was quick enough to mean something.
fn in_time<T>(mut ready: impl FnMut(), mut scene: impl FnMut() -> T) -> T {
    for _ in 0..20 {
        ready();
        let begin = Instant::now();
        let outcome = scene();
        if begin.elapsed() < IN_TIME {
            return outcome;
        }
    }
    panic!("this machine is too busy to tell");
}

/// Clients that connected one after the other, each with one answer.
fn one_by_one(address: SocketAddr, count: usize) -> Vec<Client> {
    let connect = |_| {
        let mut client = Client::connect(address);
        assert_eq!(client.get("/", "").status, 200);
        client
    };
    (0..count).map(connect).collect()
}

/// Clients that connected all at once.
fn all_at_once(address: SocketAddr, count: usize) -> Vec<Client> {
    let start = Barrier::new(count);
    let connect = || {
        start.wait();
        one_by_one(address, 1).remove(0)
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..count).map(|_| scope.spawn(connect)).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    })
}

#[test]
fn few_busy_connections_are_shared_evenly_between_the_workers() {
    let blue = Upstream::plain("blue");
    for connect in [one_by_one, all_at_once] {
        for count in [2, 4, 8] {
            let scene = || {
                let teal = Teal::start(&text(&blue, ""));
                let clients = connect(teal.address, count);
                (teal, clients)
            };
            let (teal, mut clients) = in_time(|| {}, scene);
            for _ in 1..ROUNDS {
                assert!(clients.iter_mut().all(|client| client.get("/", "").status == 200));
            }
            let half = count as u64 / 2;
            let mut admin = teal.admin();
            assert_eq!(by_worker(&mut admin, "teal_worker_connections"), [half, half]);
            assert_eq!(requests(&mut admin), [half * ROUNDS, half * ROUNDS], "{count} connections");
        }
    }
}

/// The worker that serves a client.
fn worker_of(client: &mut Client, admin: &mut Client) -> usize {
    let before = requests(admin);
    assert_eq!(client.get("/", "").status, 200);
    let after = requests(admin);
    (0..2).find(|worker| after[*worker] > before[*worker]).unwrap()
}

#[test]
fn a_connection_goes_where_less_is_busy_though_more_is_open() {
    let blue = Upstream::plain("blue");
    let teal = Teal::start(&text(&blue, ""));
    let mut admin = teal.admin();
    let clients = one_by_one(teal.address, 6);
    let mut placed: Vec<_> =
        clients.into_iter().map(|mut client| (worker_of(&mut client, &mut admin), client)).collect();
    // One worker loses all, the other keeps some; and these become idle.
    let full = placed[0].0;
    placed.retain(|(worker, _)| *worker == full);
    let kept = placed.len() as u64;
    let idle = |admin: &mut Client| {
        let open = by_worker(admin, "teal_worker_connections");
        let busy = by_worker(admin, "teal_worker_busy_connections");
        (open[full], open[1 - full], busy) == (kept, 0, [0, 0])
    };
    let ready = || teal.until("only idle connections are left", || idle(&mut admin));
    let mut both = in_time(ready, || one_by_one(teal.address, 2));
    let workers: Vec<_> = both.iter_mut().map(|client| worker_of(client, &mut admin)).collect();
    assert_eq!(workers, [1 - full, full], "the first goes where nothing is open, the second where nothing is busy");
}

#[test]
fn connections_beyond_the_limit_wait_and_none_slips_in() {
    let blue = Upstream::plain("blue");
    let teal = Teal::start(&text(&blue, "client: { max_connections: 3 }"));
    let mut admin = teal.admin();
    assert_eq!(metric(&mut admin, "teal_client_connections_limit"), 3);
    // Counted by the clients themselves: from an answer until before the end of the connection.
    let inside = AtomicUsize::new(0);
    let visit = || {
        for _ in 0..6 {
            let mut client = Client::connect(teal.address);
            assert_eq!(client.get("/", "").status, 200);
            let others = inside.fetch_add(1, SeqCst);
            assert!(others < 3, "{others} others");
            pace(Duration::from_millis(2));
            inside.fetch_sub(1, SeqCst);
        }
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..12).map(|_| scope.spawn(visit)).collect();
        while clients.iter().any(|client| !client.is_finished()) {
            assert!(metric(&mut admin, "teal_client_connections") <= 3);
        }
    });
    assert!(metric(&mut admin, "teal_accept_pauses_total{reason=\"limit\"}") > 0);
    teal.until("every place is free again", || metric(&mut admin, "teal_client_connections") == 0);
    assert_eq!(by_worker(&mut admin, "teal_worker_connections"), [0, 0]);
    assert_eq!(by_worker(&mut admin, "teal_worker_busy_connections"), [0, 0]);
}

/// A client whose connection comes from this address.
fn client_from(source: [u8; 4], to: SocketAddr) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    Client::over(TcpStream::from(socket))
}

#[test]
fn a_source_beyond_its_limit_is_hung_up_on_and_others_are_served() {
    let blue = Upstream::plain("blue");
    let teal = Teal::start(&text(&blue, "client: { max_connections_per_source: 2 }"));
    let (mut admin, refused) = (teal.admin(), "teal_client_connections_refused_total{reason=\"source_limit\"}");
    let mut inside = one_by_one(teal.address, 2);
    for refusals in 1..4 {
        assert!(teal.client().is_closed());
        assert_eq!(metric(&mut admin, refused), refusals);
    }
    assert_eq!(client_from([127, 0, 0, 2], teal.address).get("/", "").status, 200);
    assert!(inside.iter_mut().all(|client| client.get("/", "").status == 200));
    inside.pop();
    teal.until("its place is free", || metric(&mut admin, "teal_client_connections") == 1);
    assert_eq!(one_by_one(teal.address, 1).remove(0).get("/", "").status, 200);
    assert_eq!(metric(&mut admin, refused), 3);
}

#[test]
fn a_shutdown_serves_every_connection_that_was_open_before_it() {
    let blue = Upstream::plain("blue");
    for _ in 0..5 {
        let teal = Teal::start(&text(&blue, ""));
        let mut clients: Vec<_> = (0..24).map(|_| teal.client()).collect();
        clients.iter_mut().for_each(|client| client.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n"));
        let ending = thread::spawn(move || teal.shutdown());
        let statuses: Vec<_> = clients.iter_mut().map(|client| client.answer().map(|answer| answer.status)).collect();
        assert_eq!(statuses, [Some(200); 24]);
        ending.join().unwrap();
    }
}

#[test]
fn connections_that_teal_closes_are_counted_by_reason() {
    let blue = Upstream::plain("blue");
    let teal = Teal::start(&text(&blue, "client: { keep_alive: 100ms, head_timeout: 100ms }"));
    let mut idle = one_by_one(teal.address, 1).remove(0);
    let (mut silent, mut slow) = (teal.client(), teal.client());
    slow.send("GET / HTTP/1.1\r\nHost: sho");
    assert!(idle.is_closed() && silent.is_closed());
    // Whether it is told so or not.
    let _ = slow.answer();
    let mut admin = teal.admin();
    let closed = |reason: &str| format!("teal_client_connections_closed_total{{reason=\"{reason}\"}}");
    assert_eq!(metric(&mut admin, &closed("keep_alive")), 1);
    assert_eq!(metric(&mut admin, &closed("head_timeout")), 2);
    assert_eq!(metric(&mut admin, &closed("drained")), 0);
}

/// Accepting has paused for `reason`, while a crowd of 100 is at the door of this Teal.
fn outlasts_a_crowd(mut teal: Process, reason: &str, most: u64) {
    // Open from the beginning: there may be no descriptor for another.
    let mut admin = Client::connect(teal.admin);
    let series = format!("teal_accept_pauses_total{{reason=\"{reason}\"}}");
    assert_eq!(metric(&mut admin, &series), 0);
    let begin = Instant::now();
    let crowd: Vec<_> = (0..100).map(|_| TcpStream::connect(teal.listen).unwrap()).collect();
    teal.until("accepting pauses", |_| metric(&mut admin, &series) > 0);
    let spent = teal.spends_while_spinning(60);
    assert!(spent < 20, "{spent} hundredths of a second while a loop that spins got 60");
    assert!(metric(&mut admin, "teal_client_connections") <= most);
    let told = teal.logged("accepting client connections paused").len() as u64;
    assert!((1..=begin.elapsed().as_secs() + 2).contains(&told), "{told} lines in {:?}", begin.elapsed());
    drop(crowd);
    teal.until("it serves again", |teal| {
        let mut client = teal.client();
        client.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
        client.answer().is_some_and(|answer| answer.status == 200)
    });
    assert!(teal.is_running());
}

#[test]
fn out_of_descriptors_teal_neither_spins_nor_dies_and_serves_again() {
    let blue = Upstream::plain("blue");
    let teal = Process::start("ulimit -n 64", &text(&blue, "client: { max_connections: 1000 }"));
    outlasts_a_crowd(teal, "descriptors", 63);
}

#[test]
fn at_the_limit_of_connections_teal_does_not_spin_either() {
    let blue = Upstream::plain("blue");
    outlasts_a_crowd(Process::start("true", &text(&blue, "client: { max_connections: 10 }")), "limit", 10);
}

#[test]
fn the_default_limit_of_connections_leaves_descriptors_for_upstreams() {
    let blue = Upstream::plain("blue");
    let teal = Process::start("ulimit -Sn 100 && ulimit -Hn 256", &text(&blue, ""));
    assert_eq!(teal.descriptors(), (256, 256), "raised as far as it may");
    assert_eq!(metric(&mut Client::connect(teal.admin), "teal_client_connections_limit"), 96);
    assert_eq!(teal.logged("fewer client connections for want of descriptors").len(), 1);
    let teal = Process::start("ulimit -n 256", &text(&blue, "client: { max_connections: 97 }"));
    assert_eq!(metric(&mut Client::connect(teal.admin), "teal_client_connections_limit"), 97);
    assert_eq!(teal.logged("more client connections are allowed than file descriptors").len(), 1);
}
