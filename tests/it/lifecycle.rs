//! Beginning and ending: what stops a start, what a shutdown finishes and cuts, and the limits of client connections.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::support::client::Client;
use super::support::load::Load;
use super::support::teal::{Teal, settings, shop_text};
use super::support::upstream::{Act, Upstream, ok};

fn blue(top: &str) -> (Upstream, String) {
    let blue = Upstream::plain("blue");
    let text = text(&blue, top);
    (blue, text)
}

/// A configuration with one pool and more lines at the top level.
fn text(blue: &Upstream, top: &str) -> String {
    shop_text("none", &[("blue", &blue.url())], "").replace("services:", &format!("{top}\nservices:"))
}

/// An upstream that answers `/slow` only after so long, and says when it begins.
fn slow(time: Duration) -> (Upstream, mpsc::Receiver<()>) {
    let (began, begins) = mpsc::channel();
    let began = std::sync::Mutex::new(began);
    let upstream = Upstream::start(move |request| match request.line.contains("/slow") {
        true => {
            let _ = began.lock().unwrap().send(());
            Act::Slowly(time, ok("at last"))
        }
        false => Act::Answer(ok("at once")),
    });
    (upstream, begins)
}

#[test]
fn a_shutdown_finishes_what_is_under_way_and_closes_what_is_idle() {
    let (upstream, begins) = slow(Duration::from_millis(400));
    let teal = Teal::start(&text(&upstream, "shutdown: { grace: 30s }"));
    let (mut idle, mut busy) = (teal.client(), teal.client());
    assert_eq!(idle.get("/", "").body, "at once");
    busy.send("GET /slow HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    begins.recv().unwrap();
    let address = teal.address;
    let ending = thread::spawn(move || teal.shutdown());
    assert!(idle.is_closed());
    let answer = busy.answer().unwrap();
    assert_eq!((answer.status, answer.body.as_str(), answer.header("connection")), (200, "at last", Some("close")));
    assert!(busy.is_closed());
    ending.join().unwrap();
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn clients_are_told_to_go_one_after_another() {
    let (_blue, text) = blue("shutdown: { grace: 30s, pace: 1 }");
    let teal = Teal::start(&text.replace("workers: 2", "workers: 1"));
    let mut idle: Vec<_> = (0..3).map(|_| teal.client()).collect();
    assert!(idle.iter_mut().all(|client| client.get("/", "").status == 200));
    let ending = thread::spawn(move || teal.shutdown());
    assert!(idle[0].is_closed());
    // It is not its turn yet: it is served, and stays.
    assert_eq!(idle[2].get("/", "").header("connection"), None);
    assert!(idle[1].is_closed() && idle[2].is_closed(), "their turn comes");
    assert_eq!(ending.join().unwrap(), 0, "nothing was cut");
}

#[test]
fn what_takes_longer_than_the_grace_time_is_cut() {
    let (upstream, begins) = slow(Duration::from_secs(20));
    let teal = Teal::start(&text(&upstream, "shutdown: { grace: 300ms }"));
    let mut busy = teal.client();
    busy.send("GET /slow HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    begins.recv().unwrap();
    let began = Instant::now();
    assert_eq!(teal.shutdown(), 1, "one request was cut");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    let answer = busy.answer().expect("a word of why");
    assert_eq!((answer.status, answer.header("connection")), (503, Some("close")), "{answer:?}");
    assert!(busy.is_closed());
}

#[test]
fn readiness_fails_for_the_delay_while_requests_are_still_served() {
    let (_blue, text) = blue("shutdown: { delay: 1s }");
    let teal = Teal::start(&text);
    let (mut probe, mut client) = (teal.admin(), teal.client());
    assert_eq!(probe.get("/readyz", "").status, 200);
    let ending = thread::spawn(move || teal.shutdown());
    let mut answer = probe.get("/readyz", "");
    while answer.status == 200 {
        answer = probe.get("/readyz", "");
    }
    assert!(answer.status == 503 && answer.body.contains("the process is ending"), "{answer:?}");
    assert_eq!((client.get("/", "").status, probe.get("/livez", "").status), (200, 200));
    ending.join().unwrap();
}

#[test]
fn a_shutdown_under_load_fails_no_request_that_was_begun() {
    let (_blue, text) = blue("");
    for _ in 0..3 {
        let teal = Teal::start(&text);
        let address = teal.address;
        let (stop, stopped) = mpsc::channel::<()>();
        let stopped = std::sync::Mutex::new(stopped);
        thread::scope(|scope| {
            let clients: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let mut client = Client::connect(address);
                        let mut served = 0;
                        // Until the server says that this answer was the connection's last.
                        loop {
                            client.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
                            let Some(answer) = client.answer() else { return (served, false) };
                            assert_eq!(answer.status, 200);
                            served += 1;
                            if answer.header("connection") == Some("close") {
                                return (served, true);
                            }
                        }
                    })
                })
                .collect();
            crate::support::pace(Duration::from_millis(100));
            teal.shutdown();
            drop(stop);
            let ended: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
            assert!(ended.iter().all(|(served, _)| *served > 0), "{ended:?}");
            drop(stopped.lock());
        });
    }
}

/// The text of a start's refusal.
fn refused(text: &str, folder: &Path) -> String {
    match teal::app::start(settings(text, folder), None) {
        Ok(running) => {
            running.shutdown();
            panic!("it started");
        }
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_start_that_cannot_be_says_why() {
    let (_blue, text) = blue("");
    let here = Path::new(".");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let at = |key: &str, address: &str| text.replace(&format!("{key}: 127.0.0.1:0"), &format!("{key}: {address}"));
    for key in ["listen", "admin"] {
        let refusal = refused(&at(key, &address.to_string()), here);
        assert!(
            refusal.starts_with(&format!("cannot listen on {address}: ")) && refusal.contains("in use"),
            "{refusal}"
        );
    }
    // Another Teal shares its port with nobody, though it could.
    let teal = Teal::start(&text);
    let refusal = refused(&at("listen", &teal.address.to_string()), here);
    assert!(refusal.contains("in use"), "{refusal}");
    let everywhere = format!("0.0.0.0:{}", teal.address.port());
    assert!(refused(&at("listen", &everywhere), here).contains("in use"));

    let refusal = refused(&text.replacen("version: 1", "version: 1\naccess_log: /proc/none/access.log", 1), here);
    assert!(refusal.starts_with("cannot write the access log: "), "{refusal}");
}

#[test]
fn a_state_that_cannot_be_used_is_refused() {
    let (_blue, text) = blue("");
    let folder = tempfile::tempdir().unwrap();
    let text = text.replace("state: none", "state: ./state");
    let path = folder.path().join("teal.yaml");
    std::fs::write(&path, &text).unwrap();
    let teal = Teal::in_folder(&text);
    let refusal = refused(&text, teal.folder.as_ref().unwrap().path());
    assert!(refusal.starts_with("cannot use the state: another teal is running on this state"), "{refusal}");
    // And after it has ended, the same state is free.
    drop(teal.restart());

    std::fs::create_dir(folder.path().join("state")).unwrap();
    std::fs::write(folder.path().join("state/teal.redb"), "my diary").unwrap();
    let refusal = refused(&text, folder.path());
    assert!(refusal.contains("not a usable state file") && refusal.contains("move it away"), "{refusal}");
    let in_the_way = text.replace("./state", "./teal.yaml/state");
    let refusal = refused(&in_the_way, folder.path());
    assert!(refusal.starts_with("cannot use the state: cannot open the state in "), "{refusal}");
    // Permissions do not stop root, as whom tests may run.
    std::fs::create_dir(folder.path().join("locked")).unwrap();
    std::fs::set_permissions(folder.path().join("locked"), PermissionsExt::from_mode(0o500)).unwrap();
    if std::fs::write(folder.path().join("locked/probe"), "").is_err() {
        let refusal = refused(&text.replace("./state", "./locked"), folder.path());
        assert!(refusal.starts_with("cannot use the state: cannot open the state in "), "{refusal}");
    }
}

#[test]
fn a_stored_state_that_the_file_contradicts_is_refused() {
    let (blue, green) = (Upstream::plain("blue"), Upstream::plain("green"));
    let text = |pools: &[(&str, &str)]| shop_text("./state", pools, "");
    let teal = Teal::in_folder(&text(&[("blue", &blue.url()), ("green", &green.url())]));
    teal.weigh(30).unwrap();
    let mut teal = teal;
    let folder = teal.folder.take().unwrap();
    drop(teal);
    let refusal = refused(&text(&[("blue", &blue.url())]), folder.path());
    assert!(refusal.contains("`shop` gives traffic to pool `green`, which the file does not name"), "{refusal}");
}

#[test]
fn idle_and_slow_clients_are_cut_and_patient_ones_served() {
    let (_blue, text) = blue("client: { keep_alive: 300ms, head_timeout: 300ms }");
    let teal = Teal::start(&text);
    let mut silent = teal.client();
    let mut idle = teal.client();
    assert_eq!(idle.get("/", "").status, 200);
    let mut slow = teal.client();
    slow.send("GET / HTTP/1.1\r\nHost: sho");
    assert!(silent.is_closed(), "never said anything");
    assert!(idle.is_closed(), "idle between requests");
    let cut = slow.answer().is_none_or(|answer| answer.status == 408);
    assert!(cut && slow.is_closed(), "half a head");
    assert_eq!(teal.client().get("/", "").status, 200);
}

#[test]
fn at_the_connection_limit_accepting_pauses_and_recovers() {
    let (_blue, text) = blue("client: { max_connections: 4 }");
    let teal = Teal::start(&text);
    let mut first: Vec<Client> = (0..4).map(|_| teal.client()).collect();
    assert!(first.iter_mut().all(|client| client.get("/", "").status == 200));
    // The kernel takes them, Teal does not yet.
    let mut waiting: Vec<_> = (0..3).map(|_| std::net::TcpStream::connect(teal.address).unwrap()).collect();
    waiting.iter_mut().for_each(|stream| stream.write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").unwrap());
    for stream in &waiting {
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        assert!(std::io::Read::read(&mut &*stream, &mut [0]).is_err(), "served beyond the limit");
    }
    assert!(first.iter_mut().all(|client| client.get("/", "").status == 200), "those inside are served on");
    drop(first);
    for stream in waiting {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_eq!(std::io::Read::read(&mut &stream, &mut [0; 4]).unwrap(), 4);
    }
    let load = Load::start(teal.address, 2);
    teal.until("traffic after it", || load.served() > 50);
    assert_eq!(load.finish(), Default::default());
}
