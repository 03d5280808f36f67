//! Sockets that outlive a process: a new one takes over without a connection noticing, or they were there before.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::support::client::{Answer, Client};
use super::support::load::Load;
use super::support::process::{Process, until};
use super::support::teal::shop_text;
use super::support::upstream::{Act, Upstream, ok};

/// Processes that are nobody's children once the ones before them have ended: killed when dropped.
#[derive(Default)]
struct Successors(Vec<u64>);

impl Drop for Successors {
    fn drop(&mut self) {
        self.0.iter().filter(|process| is_alive(**process)).for_each(|process| signal("KILL", *process));
    }
}

fn signal(name: &str, process: u64) {
    // It may have ended just now.
    let _ = Command::new("sh").args(["-c", "kill -\"$0\" \"$1\"", name, &process.to_string()]).status();
}

/// True unless it has ended; whoever it belongs to may not have asked how yet.
fn is_alive(process: u64) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(process.to_string()).join("stat"));
    stat.is_ok_and(|stat| !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')))
}

fn order(admin: SocketAddr, method: &str, path: &str, body: &str) -> (u16, Value) {
    let Answer { status, body, .. } = Client::connect(admin).order(method, path, "", body);
    (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{status}: {body}")))
}

/// Has the process behind `admin` succeeded.
fn upgrade(admin: SocketAddr, successors: &mut Successors) -> Value {
    let (status, upgraded) = order(admin, "POST", "/v1/upgrade", "");
    assert_eq!(status, 200, "{upgraded}");
    successors.0.push(upgraded["process"].as_u64().unwrap());
    upgraded
}

fn share_of_green(admin: SocketAddr) -> Value {
    order(admin, "GET", "/v1/services/shop", "").1["pools"][1]["share"].clone()
}

fn text(blue: &Upstream, green: &Upstream) -> String {
    shop_text("./state", &[("blue", &blue.url()), ("green", &green.url())], "guard: off")
}

#[test]
fn processes_follow_each_other_under_load_and_nothing_is_lost() {
    let (blue, green) = (Upstream::plain("blue"), Upstream::plain("green"));
    let process = Process::start("true", &text(&blue, &green));
    let mut successors = Successors::default();
    let weights = r#"{"weights": {"green": "30%"}}"#;
    assert_eq!(order(process.admin, "PUT", "/v1/services/shop/weights", weights).0, 200);
    let drained =
        order(process.admin, "PUT", "/v1/services/shop/pools/green", r#"{"state": "drained", "force": true}"#);
    assert_eq!(drained.0, 200);
    assert_eq!(order(process.admin, "PUT", "/v1/services/shop/pools/green", r#"{"state": "in_use"}"#).0, 200);
    let load = Load::start(process.listen, 4);
    let mut before = u64::from(process.id());
    for _ in 0..3 {
        let served = load.served();
        until("traffic", || load.served() > served + 50);
        let upgraded = upgrade(process.admin, &mut successors);
        assert_eq!(upgraded["predecessor"], before);
        until("the one before ends by itself", || !is_alive(before));
        before = upgraded["process"].as_u64().unwrap();
        assert_eq!(share_of_green(process.admin), "30%", "the state went over");
    }
    let served = load.served();
    until("traffic", || load.served() > served + 50);
    assert_eq!(load.finish(), Default::default());
    assert!(blue.count() > 0 && green.count() > 0);
    // And the last of them ends in order, and nobody listens any more.
    signal("TERM", before);
    until("the last one ends", || !is_alive(before));
    assert!(std::net::TcpStream::connect(process.listen).is_err());
}

#[test]
fn a_tunnel_stays_with_the_old_process_until_it_closes() {
    let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n".to_vec();
    let blue = Upstream::start(move |request| match request.header("upgrade") {
        Some(_) => Act::Echo(switch.clone()),
        None => Act::Answer(ok("blue")),
    });
    let process = Process::start("true", &text(&blue, &blue));
    let mut successors = Successors::default();
    let mut tunnel = process.client();
    tunnel.send("GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(tunnel.head().unwrap().status, 101);
    let upgraded = upgrade(process.admin, &mut successors);
    for _ in 0..3 {
        tunnel.send("hello");
        assert_eq!(tunnel.bytes(5), b"hello");
        assert_eq!(process.client().get("/", "").body, "blue", "the new one serves beside it");
    }
    let old = upgraded["predecessor"].as_u64().unwrap();
    assert!(is_alive(old));
    drop(tunnel);
    until("the old one ends", || !is_alive(old));
}

#[test]
fn a_successor_that_cannot_serve_changes_nothing() {
    let (blue, green) = (Upstream::plain("blue"), Upstream::plain("green"));
    let good = text(&blue, &green);
    let process = Process::start("true", &good);
    let mut successors = Successors::default();
    let weigh = |share: &str| {
        let weights = json!({ "weights": { "green": share } }).to_string();
        order(process.admin, "PUT", "/v1/services/shop/weights", &weights).0
    };
    assert_eq!(weigh("30%"), 200);
    // Found out before the state changes hands.
    process.write(&good.replace("guard: off", "guard: of"));
    let (status, refused) = order(process.admin, "POST", "/v1/upgrade", "");
    let detail = refused["detail"].as_str().unwrap();
    assert!(status == 500 && detail.contains("the new process refused: ") && detail.contains("`guard`"), "{refused}");
    assert_eq!(weigh("20%"), 200);
    // Found out with the state in its hands.
    process.write(&shop_text("./state", &[("blue", &blue.url())], "guard: off"));
    let (status, refused) = order(process.admin, "POST", "/v1/upgrade", "");
    let detail = refused["detail"].as_str().unwrap();
    assert!(status == 500 && detail.contains("gives traffic to pool `green`"), "{refused}");
    assert_eq!((process.client().get("/", "").status, weigh("10%")), (200, 200), "the state is back");
    process.write(&good);
    upgrade(process.admin, &mut successors);
    assert_eq!(share_of_green(process.admin), "10%");
}

#[test]
fn a_process_whose_state_would_be_lost_is_not_succeeded() {
    let blue = Upstream::plain("blue");
    let process = Process::start("true", &shop_text("none", &[("blue", &blue.url())], ""));
    let (status, refused) = order(process.admin, "POST", "/v1/upgrade", "");
    assert_eq!((status, &refused["code"]), (409, &"conflict".into()));
    assert!(refused["detail"].as_str().unwrap().contains("in memory only"), "{refused}");
    assert_eq!(process.client().get("/", "").status, 200);
}

#[test]
fn sockets_of_a_service_manager_are_served_and_what_it_did_not_pass_is_bound() {
    let blue = Upstream::plain("blue");
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    // Waiting before anybody serves.
    let mut early = Client::connect(address);
    early.send("GET /early HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    let text = shop_text("none", &[("blue", &blue.url())], "");
    let text = text.replace("listen: 127.0.0.1:0", &format!("listen: [\"{address}\", \"127.0.0.2:0\"]"));
    let passed = "exec 3<&0 0</dev/null && export LISTEN_FDS=1 LISTEN_PID=$$";
    let process = Process::with_input(passed, &text, Stdio::from(OwnedFd::from(socket)));
    assert_eq!(early.answer().unwrap().body, "blue");
    let all = process.logged("serving").remove(0);
    assert!(all.contains(&format!("listen={address} 127.0.0.2:")), "{all}");
    let load = Load::start(address, 4);
    until("traffic", || load.served() > 100);
    assert_eq!(load.finish(), Default::default());
}

#[test]
fn a_unix_socket_of_a_service_manager_keeps_its_file() {
    let (blue, folder) = (Upstream::plain("blue"), tempfile::tempdir().unwrap());
    let path = folder.path().join("teal.sock");
    let socket = UnixListener::bind(&path).unwrap();
    let text = shop_text("none", &[("blue", &blue.url())], "");
    let text = text.replace("listen: 127.0.0.1:0", &format!("listen: [\"127.0.0.1:0\", \"unix:{}\"]", path.display()));
    let passed = "exec 3<&0 0</dev/null && export LISTEN_FDS=1 LISTEN_PID=$$";
    let process = Process::with_input(passed, &text, Stdio::from(OwnedFd::from(socket)));
    assert_eq!(Client::unix(&path).get("/", "").body, "blue");
    let id = u64::from(process.id());
    signal("TERM", id);
    until("it ends", || !is_alive(id));
    assert!(path.exists(), "the file is the manager's");
}
