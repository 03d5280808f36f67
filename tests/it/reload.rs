//! The configuration file is watched: a legal change is taken up under load, an illegal one changes nothing.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::mpsc;

use super::support::load::Load;
use super::support::raw::Raw;
use super::support::teal::{Teal, shop_text};
use super::support::upstream::Upstream;

struct Site {
    blue: Upstream,
    green: Upstream,
    teal: Teal,
}

impl Site {
    fn new() -> Site {
        let (blue, green) = (Upstream::plain("blue"), Upstream::plain("green"));
        let teal = Teal::in_folder(&text(&blue, &green, ""));
        Site { blue, green, teal }
    }

    fn text(&self, more: &str) -> String {
        text(&self.blue, &self.green, more)
    }

    fn file(&self) -> PathBuf {
        self.teal.folder.as_ref().unwrap().path().join("teal.yaml")
    }

    /// Replaces the file as editors do: written beside it and renamed.
    fn rename(&self, text: &str) {
        let beside = self.file().with_extension("new");
        fs::write(&beside, text).unwrap();
        fs::rename(beside, self.file()).unwrap();
    }

    /// Waits for so many reloads that were taken and refused since the start.
    fn until_told(&self, taken: usize, refused: usize) {
        self.teal.until(&format!("{taken} reloads taken and {refused} refused"), || {
            (self.teal.told("reload").len(), self.teal.told("reload_refused").len()) == (taken, refused)
        });
    }

    fn last_refusal(&self) -> String {
        self.teal.told("reload_refused").pop().unwrap()
    }

    fn metric(&self) -> String {
        let text = self.teal.admin().order("GET", "/metrics", "", "").body;
        let line = text.lines().find(|line| line.starts_with("teal_config_last_reload_successful")).unwrap();
        line.rsplit(' ').next().unwrap().to_owned()
    }
}

fn text(blue: &Upstream, green: &Upstream, more: &str) -> String {
    shop_text("./state", &[("blue", &blue.url()), ("green", &green.url())], more)
}

#[test]
fn endpoints_and_services_come_and_go_under_load_at_no_cost() {
    let site = Site::new();
    let (second, admin) = (Upstream::plain("second"), Upstream::plain("admin"));
    let load = Load::start(site.teal.address, 3);
    site.teal.until("traffic", || load.served() > 50);
    let both = format!("[{}, {}]", site.blue.url(), second.url());
    let pools = [("blue", both.as_str()), ("green", &site.green.url())];
    let more = format!("  desk:\n    hosts: [desk.test]\n    pools: {{ only: {} }}\n", admin.url());
    site.rename(&(shop_text("./state", &pools, "") + &more));
    site.until_told(1, 0);
    site.teal.until("the second endpoint has its part", || second.count() > 20);
    let mut client = site.teal.client();
    client.send("GET / HTTP/1.1\r\nHost: desk.test\r\n\r\n");
    assert_eq!(client.answer().unwrap().body, "admin");
    site.rename(&site.text(""));
    site.until_told(2, 0);
    let (served, count) = (load.served(), second.count());
    site.teal.until("traffic without it", || load.served() > served + 100);
    assert!(second.count() <= count + 3, "a removed endpoint still had traffic");
    client.send("GET / HTTP/1.1\r\nHost: desk.test\r\n\r\n");
    assert_eq!(client.answer().unwrap().body, "blue", "no such service: the one for every host");
    assert_eq!(load.finish(), Default::default());
}

#[test]
fn an_illegal_file_changes_nothing_and_says_where_it_is_wrong() {
    let site = Site::new();
    let load = Load::start(site.teal.address, 2);
    assert_eq!(site.metric(), "1");
    let version = site.teal.running().controller.plane().table.load().version;
    // In place, cut in the middle: what a slow writer shows.
    let whole = site.text("guard: observe\n");
    fs::write(site.file(), &whole[..whole.len() - 9]).unwrap();
    site.until_told(0, 1);
    let refusal = site.last_refusal();
    assert!(refusal.contains("nothing changed") && refusal.contains("teal.yaml:"), "{refusal}");
    assert_eq!(site.metric(), "0");
    site.rename(&site.text("gaurd: observe\n"));
    site.until_told(0, 2);
    let refusal = site.last_refusal();
    let line = site.text("gaurd: observe\n").lines().position(|line| line.contains("gaurd")).unwrap() + 1;
    assert!(refusal.contains(&format!("teal.yaml:{line}:")) && refusal.contains("guard"), "{refusal}");
    assert_eq!(site.teal.running().controller.plane().table.load().version, version);
    fs::write(site.file(), &whole).unwrap();
    site.until_told(1, 2);
    assert_eq!(site.metric(), "1");
    // Back to what runs is no change, and well again.
    site.rename("nonsense");
    site.until_told(1, 3);
    site.rename(&whole);
    site.teal.until("it is well again", || site.metric() == "1");
    assert_eq!(load.finish(), Default::default());
}

#[test]
fn a_pool_in_use_stays_and_the_refusal_says_why() {
    let site = Site::new();
    let only = |pool: &str, upstream: &Upstream| shop_text("./state", &[(pool, &upstream.url())], "");
    site.teal.weigh(10).unwrap();
    site.rename(&only("blue", &site.blue));
    site.until_told(0, 1);
    let refusal = site.last_refusal();
    assert_eq!(refusal, "nothing changed: pool `green` of service `shop` has 10% of its traffic");
    site.rename(&only("green", &site.green));
    site.until_told(0, 2);
    assert_eq!(site.last_refusal(), "nothing changed: pool `blue` of service `shop` is the active one");
    // The state is as it was: the split moves on, and a pool without traffic may go.
    site.teal.weigh(20).unwrap();
    site.teal.weigh(0).unwrap();
    site.rename(&(only("blue", &site.blue) + "    guard: off\n"));
    site.until_told(1, 2);
    assert_eq!(site.teal.shop_now().pools.len(), 1);
    // A restart starts from the same file and state.
    let teal = site.teal.restart();
    assert_eq!((teal.shop_now().pools.len(), teal.client().get("/", "").body.as_str()), (1, "blue"));
}

#[test]
fn a_pool_of_a_rollout_stays() {
    let site = Site::new();
    let plan = "rollout: { steps: [ { weight: 1% }, { pause: approve } ] }";
    site.rename(&site.text(plan));
    site.until_told(1, 0);
    let id = site.teal.deploy("green").unwrap();
    site.rename(&shop_text("./state", &[("blue", &site.blue.url())], ""));
    site.until_told(1, 1);
    let refusal = site.last_refusal();
    assert!(refusal.contains(&id) && refusal.contains("needs its pools"), "{refusal}");
}

#[test]
fn a_symlink_swap_is_a_change() {
    let (blue, green) = (Upstream::plain("blue"), Upstream::plain("green"));
    let folder = tempfile::tempdir().unwrap();
    // As Kubernetes mounts a ConfigMap: file -> ..data/file, ..data -> a folder per version.
    let version = |name: &str, more: &str| {
        fs::create_dir(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join("teal.yaml"), text(&blue, &green, more)).unwrap();
    };
    version("..1", "");
    symlink("..1", folder.path().join("..data")).unwrap();
    symlink("..data/teal.yaml", folder.path().join("teal.yaml")).unwrap();
    let site = Site { teal: Teal::from_folder(folder), blue, green };
    let folder = site.teal.folder.as_ref().unwrap().path();
    fs::create_dir(folder.join("..2")).unwrap();
    fs::write(folder.join("..2/teal.yaml"), site.text("guard: hold\n")).unwrap();
    symlink("..2", folder.join("..data_tmp")).unwrap();
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    site.until_told(1, 0);
    assert_eq!(site.teal.shop_now().guard, teal::config::settings::Guard::Hold);
}

#[test]
fn a_folder_that_is_never_quiet_is_read_all_the_same_and_a_refusal_is_told_once() {
    let site = Site::new();
    let folder = site.teal.folder.as_ref().unwrap().path().to_owned();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let noise = scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                fs::write(folder.join("noise.log"), "x").unwrap();
                crate::support::pace(std::time::Duration::from_millis(5));
            }
        });
        site.rename("nonsense");
        site.until_told(0, 1);
        site.rename(&site.text("guard: off\n"));
        // Told once, however much else was written meanwhile.
        site.until_told(1, 1);
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        noise.join().unwrap();
    });
}

#[test]
fn a_reload_that_only_a_restart_can_finish_says_so() {
    let site = Site::new();
    site.rename(&site.text("").replace("workers: 2", "workers: 1"));
    site.until_told(1, 0);
    let told = site.teal.told("reload").pop().unwrap();
    assert_eq!(told, "configuration reloaded by file watch; a restart is needed for workers");
}

#[test]
fn endpoints_that_want_to_be_told_from_now_on_are_not_spoken_to_over_old_connections() {
    let (said, hearing) = mpsc::channel();
    let blue = Raw::start(move |number, talk| {
        while let Some(head) = talk.head() {
            said.send((number, head.lines().next().unwrap().to_owned())).unwrap();
            talk.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let text = |pool: &str| shop_text("./state", &[("blue", pool)], "health: off").replace("workers: 2", "workers: 1");
    let teal = Teal::in_folder(&text(&blue.url()));
    let mut client = teal.client();
    let mut asked = || {
        assert_eq!(client.get("/", "").body, "ok");
        hearing.recv().unwrap()
    };
    assert_eq!(asked(), (1, "GET / HTTP/1.1".to_owned()));
    assert_eq!(asked(), (1, "GET / HTTP/1.1".to_owned()), "the connection is kept");
    let file = teal.folder.as_ref().unwrap().path().join("teal.yaml");
    fs::write(file, text(&format!("{{ endpoints: '{}', proxy_protocol: v1 }}", blue.url()))).unwrap();
    teal.until("the change is taken up", || teal.told("reload").len() == 1);
    let (connection, line) = asked();
    assert_eq!((connection, line.starts_with("PROXY TCP4 127.0.0.1 ")), (2, true), "{line}");
}
