//! Discovery against a real name server: what is found, followed, and kept.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::server::{Server, a, aaaa, srv};
use super::*;
use crate::config::settings::{Family, Pool, Resolve, Service};
use crate::control::publisher::Published;
use crate::control::state::ServiceState;
use crate::domain::rollout::machine::UnixMillis;
use crate::domain::split::Share;

/// Long enough for a loaded machine; nothing waits for it unless it fails.
const PATIENCE: Duration = Duration::from_secs(20);

fn resolver(server: &Server) -> Resolver {
    Resolver { servers: vec![server.address], ttl_floor: Duration::from_millis(5), ..Resolver::default() }
}

/// A control plane of one service `shop` with these pools, and discovery following its names.
struct Rig {
    plane: Arc<Plane>,
    publisher: Arc<Publisher>,
    events: Arc<Events>,
    discovery: Arc<Discovery>,
    tasks: JoinSet<()>,
}

impl Rig {
    async fn start(resolver: &Resolver, pools: Vec<Pool>) -> Rig {
        let workers = NonZeroUsize::MIN;
        let plane = Arc::new(Plane::new(workers.get()));
        let publisher = Arc::new(Publisher::new(Arc::clone(&plane), workers.get()));
        let events = Arc::new(Events::default());
        let discovery = Arc::new(Discovery::new(resolver, Arc::clone(&publisher), Arc::clone(&events)));
        let mut rig = Rig { plane, publisher, events, discovery, tasks: JoinSet::new() };
        rig.install(pools).await;
        rig.tasks.spawn(Arc::clone(&rig.discovery).run(Arc::clone(&rig.plane)));
        rig
    }

    async fn install(&self, pools: Vec<Pool>) {
        let settings = settings(pools);
        self.discovery.meet(&settings).await;
        let materials = self.publisher.materials(&settings).unwrap();
        self.publisher.install(&settings, materials, |_| ServiceState::new("blue", "test", UnixMillis(0)));
    }

    /// The endpoints of a pool, as shown.
    fn endpoints(&self, pool: usize) -> Vec<String> {
        let table = self.plane.table.load_full();
        table.services[0].pools[pool].endpoints.iter().map(|endpoint| endpoint.to_string()).collect()
    }

    /// Waits until pool 0 is at these addresses.
    async fn settles(&self, name: &str, at: &[&str]) {
        let expected: Vec<_> = at.iter().map(|at| format!("{name} at {at}")).collect();
        let settled = async {
            while self.endpoints(0) != expected {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, settled).await;
        assert!(found.is_ok(), "{:?} never became {expected:?}", self.endpoints(0));
    }

    /// Waits for an event that holds `words`.
    async fn told(&self, words: &str) {
        let told = async {
            let mut newest = self.events.follow();
            while !self.events.after(0).iter().any(|event| event.sentence.contains(words)) {
                newest.changed().await.unwrap();
            }
        };
        let found = tokio::time::timeout(PATIENCE, told).await;
        assert!(found.is_ok(), "nobody said {words}: {:?}", self.events.after(0));
    }
}

fn settings(pools: Vec<Pool>) -> Settings {
    Settings {
        listen: Vec::new(),
        admin: None,
        state: crate::config::settings::State::Ephemeral,
        workers: NonZeroUsize::MIN,
        access_log: Default::default(),
        client: Default::default(),
        resolver: Resolver::default(),
        shutdown: Default::default(),
        services: vec![Service::new("shop".to_owned(), pools)],
    }
}

fn pool(name: &str, addresses: &[&str]) -> Pool {
    Pool::new(name, addresses.iter().map(|address| address.parse::<Address>().unwrap()))
}

const APP: &str = "http://app.test:80";

#[tokio::test]
async fn the_first_table_knows_every_address() {
    let server = Server::start().await;
    server.set("app.test.", &[(60, a("10.0.0.2")), (60, a("10.0.0.1")), (60, a("10.0.0.2"))]);
    let pools = vec![
        pool("blue", &[APP, "http://10.9.9.9:1", "unix:/run/app.sock"]),
        Pool { resolve: Resolve::First, ..pool("green", &[APP]) },
    ];
    let rig = Rig::start(&resolver(&server), pools).await;
    let blue = ["http://app.test:80 at 10.0.0.1:80", "http://app.test:80 at 10.0.0.2:80"];
    assert_eq!(rig.endpoints(0), [blue[0], blue[1], "http://10.9.9.9:1", "unix:/run/app.sock"]);
    assert_eq!(rig.endpoints(1), [blue[0]]);
    assert_eq!(server.asked(), 1, "one question for one name, none for addresses");
    assert_eq!(rig.plane.table.load().version, 1);
}

#[tokio::test]
async fn an_answer_is_kept_until_its_ttl_ends_and_not_longer() {
    let server = Server::start().await;
    server.set("app.test.", &[(3_600, a("10.0.0.1"))]);
    server.set("quick.test.", &[(0, a("10.0.0.9"))]);
    let rig = Rig::start(&resolver(&server), vec![pool("blue", &[APP]), pool("green", &["http://quick.test"])]).await;
    server.set("app.test.", &[(3_600, a("10.0.0.2"))]);
    // While the other is asked for over and over.
    server.asked_again(5).await;
    assert_eq!(rig.endpoints(0), ["http://app.test:80 at 10.0.0.1:80"]);
    let due = |name: &str| rig.discovery.lock().get(&name.parse().unwrap()).unwrap().due();
    assert!(due(APP).since(clock::now()) > 200_000_000, "five minutes at most, not at once");
    assert!(due("http://quick.test").since(clock::now()) <= 5_000);
}

#[tokio::test]
async fn a_change_moves_what_changed_and_keeps_the_rest() {
    let server = Server::start().await;
    server.set("app.test.", &[(0, a("10.0.0.1")), (0, a("10.0.0.2"))]);
    let first = Pool { resolve: Resolve::First, ..pool("green", &[APP]) };
    let rig = Rig::start(&resolver(&server), vec![pool("blue", &[APP]), first]).await;
    rig.settles(APP, &["10.0.0.1:80", "10.0.0.2:80"]).await;
    let before = rig.plane.table.load_full();
    let five = Share::from_basis_points(500).unwrap();
    let mut state = ServiceState::new("blue", "test", UnixMillis(0));
    state.give("green", five);
    let Published { epoch, .. } = rig.publisher.shift("shop", &state).unwrap();

    server.set("app.test.", &[(0, a("10.0.0.3")), (0, a("10.0.0.2")), (0, a("10.0.0.1"))]);
    rig.settles(APP, &["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]).await;
    server.set("app.test.", &[(0, a("10.0.0.3")), (0, a("10.0.0.2"))]);
    rig.settles(APP, &["10.0.0.2:80", "10.0.0.3:80"]).await;

    let after = rig.plane.table.load_full();
    let (old, new) = (&before.services[0], &after.services[0]);
    let kept = |at: usize, place: usize| Arc::ptr_eq(&old.pools[0].endpoints[at], &new.pools[0].endpoints[place]);
    assert!(kept(1, 0), "10.0.0.2 was there all the time");
    assert!(old.pools[0].endpoints[0].is_retired() && !old.pools[0].endpoints[1].is_retired());
    assert!(Arc::ptr_eq(&old.pools[0].tally, &new.pools[0].tally));
    assert_eq!((new.epoch, new.share(1)), (epoch, five), "the split and its epoch are nobody's business here");
    // The other pool takes one address, and another only once that is gone.
    assert_eq!(rig.endpoints(1), ["http://app.test:80 at 10.0.0.2:80"]);
    rig.told("http://app.test:80 is now at").await;
}

#[tokio::test]
async fn a_name_that_vanishes_stays_where_it_was() {
    let server = Server::start().await;
    server.set("app.test.", &[(0, a("10.0.0.1"))]);
    let rig = Rig::start(&resolver(&server), vec![pool("blue", &[APP])]).await;
    rig.settles(APP, &["10.0.0.1:80"]).await;
    server.remove("app.test.");
    rig.told("http://app.test:80 cannot be looked up, it stays at 10.0.0.1:80: app.test has no address").await;
    assert_eq!(rig.endpoints(0), ["http://app.test:80 at 10.0.0.1:80"]);
    // There, but without an address: the same.
    server.set("app.test.", &[]);
    server.asked_again(4).await;
    assert_eq!(rig.endpoints(0), ["http://app.test:80 at 10.0.0.1:80"]);
    server.set("app.test.", &[(0, a("10.0.0.1"))]);
    rig.told("http://app.test:80 can be looked up again").await;
    let known = rig.discovery.names().remove(0);
    assert!(known.failures >= 3 && known.addresses == 1, "{known:?}");
}

#[tokio::test]
async fn a_server_that_is_down_changes_nothing() {
    let server = Server::start().await;
    server.set("app.test.", &[(0, a("10.0.0.1"))]);
    let resolver = Resolver { timeout: Duration::from_millis(50), ..resolver(&server) };
    let rig = Rig::start(&resolver, vec![pool("blue", &[APP])]).await;
    rig.settles(APP, &["10.0.0.1:80"]).await;
    drop(server);
    rig.told("http://app.test:80 cannot be looked up, it stays at 10.0.0.1:80").await;
    assert_eq!(rig.endpoints(0), ["http://app.test:80 at 10.0.0.1:80"]);
}

#[tokio::test]
async fn a_name_that_was_never_found_is_in_the_table_and_gets_nothing() {
    let server = Server::start().await;
    let rig = Rig::start(&resolver(&server), vec![pool("blue", &[APP])]).await;
    assert_eq!(rig.endpoints(0), ["http://app.test:80"]);
    assert!(!rig.plane.table.load().services[0].pools[0].endpoints[0].is_eligible());
    rig.told("http://app.test:80 cannot be looked up, it has no address yet").await;
    server.set("app.test.", &[(0, a("10.0.0.1"))]);
    rig.settles(APP, &["10.0.0.1:80"]).await;
}

#[tokio::test]
async fn a_reload_knows_its_new_names_at_once_and_forgets_the_old_ones() {
    let server = Server::start().await;
    server.set("app.test.", &[(60, a("10.0.0.1"))]);
    server.set("new.test.", &[(60, a("10.0.0.5"))]);
    let rig = Rig::start(&resolver(&server), vec![pool("blue", &[APP])]).await;
    rig.install(vec![pool("blue", &["http://new.test:80"])]).await;
    assert_eq!(rig.endpoints(0), ["http://new.test:80 at 10.0.0.5:80"]);
    let forgotten = async {
        while rig.discovery.names().len() != 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, forgotten).await.unwrap();
    assert_eq!(rig.discovery.names()[0].address, "http://new.test:80".parse().unwrap());
}

#[tokio::test]
async fn a_service_is_the_hosts_and_ports_of_its_lowest_priority() {
    let server = Server::start().await;
    server.set("one.test.", &[(60, a("10.0.0.1")), (60, a("10.0.0.2"))]);
    server.set("two.test.", &[(60, a("10.0.0.3"))]);
    server.set("spare.test.", &[(60, a("10.0.0.9"))]);
    let records = [
        (0, srv(1, 8_080, "one.test.")),
        (0, srv(1, 8_081, "two.test.")),
        (0, srv(1, 8_082, "gone.test.")),
        (0, srv(2, 9_090, "spare.test.")),
    ];
    server.set("_http._tcp.app.test.", &records);
    const NAME: &str = "srv:_http._tcp.app.test";
    let rig = Rig::start(&resolver(&server), vec![pool("blue", &[NAME])]).await;
    rig.settles(NAME, &["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8081"]).await;
    server.set("_http._tcp.app.test.", &records[3..]);
    rig.settles(NAME, &["10.0.0.9:9090"]).await;
    // `.` means that the service is not there (RFC 2782); that is no address.
    server.set("_http._tcp.app.test.", &[(0, srv(0, 0, "."))]);
    rig.told("srv:_http._tcp.app.test cannot be looked up, it stays at 10.0.0.9:9090").await;
}

#[tokio::test]
async fn the_hosts_file_counts_first_and_is_read_again() {
    let server = Server::start().await;
    server.set("app.test.", &[(60, a("10.0.0.1"))]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hosts");
    std::fs::write(&path, "10.7.7.7 App.test other # ours\n").unwrap();
    let lookup = Lookup::with_hosts(resolver(&server), path.clone());
    let address: Address = APP.parse().unwrap();
    let found = lookup.find(&address).await.unwrap();
    assert_eq!((found.at, server.asked()), (vec!["10.7.7.7:80".parse().unwrap()], 0));
    std::fs::write(&path, "10.8.8.8 app.test and-longer-than-before\n").unwrap();
    assert_eq!(lookup.find(&address).await.unwrap().at, ["10.8.8.8:80".parse().unwrap()]);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(lookup.find(&address).await.unwrap().at, ["10.0.0.1:80".parse().unwrap()]);
}

#[tokio::test]
async fn the_family_decides_which_addresses_count() {
    let server = Server::start().await;
    server.set("both.test.", &[(9, a("10.0.0.1")), (5, aaaa("fd00::1"))]);
    server.set("six.test.", &[(5, aaaa("fd00::2"))]);
    server.set("four.test.", &[(5, a("10.0.0.3"))]);
    let table = [
        (Family::Ipv4First, "both", vec!["10.0.0.1:80"]),
        (Family::Ipv4First, "six", vec!["[fd00::2]:80"]),
        (Family::Ipv6First, "both", vec!["[fd00::1]:80"]),
        (Family::Ipv6First, "four", vec!["10.0.0.3:80"]),
        (Family::Both, "both", vec!["10.0.0.1:80", "[fd00::1]:80"]),
        (Family::Both, "six", vec!["[fd00::2]:80"]),
    ];
    for (family, name, expected) in table {
        let lookup = Lookup::new(Resolver { family, ..resolver(&server) });
        let found = lookup.find(&format!("http://{name}.test:80").parse().unwrap()).await.unwrap();
        let expected: Vec<SocketAddr> = expected.iter().map(|at| at.parse().unwrap()).collect();
        assert_eq!(found.at, expected, "{family:?} {name}");
        let shortest = if (family, name) == (Family::Ipv4First, "both") { 9 } else { 5 };
        assert_eq!(found.ttl, Duration::from_secs(shortest));
    }
    let lookup = Lookup::new(resolver(&server));
    let nobody = lookup.find(&"http://nobody.test:80".parse().unwrap()).await;
    assert_eq!(nobody, Err("nobody.test has no address".to_owned()));
}
