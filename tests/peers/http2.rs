//! nginx as an upstream that speaks HTTP/2, and that ends every connection after a few requests.

use std::time::Duration;

use crate::support::load::{Load, Shape};
use crate::support::nginx::{self, Nginx, arrivals};
use crate::support::teal::Teal;
use crate::support::{free_address, pace, pick};

/// Requests that nginx takes over one connection before it sends a `GOAWAY`.
const LIFE: usize = 25;

#[test]
fn connections_that_go_away_cost_no_request_and_repeat_none() {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let server = format!(
        "server {{ listen {address} http2 backlog=1024; keepalive_requests {LIFE}; location / {{ {} }} }}",
        nginx::answer("blue")
    );
    let nginx = Nginx::start(folder.path(), "blue", &server, "location / { return 200 up; }");
    let pool = format!("{{ endpoints: [http://{address}], protocol: h2 }}");
    let teal = Teal::shop(folder.path(), &pool, &pool, "health: off\nretry: off", "");
    let shape = Shape { connections: 16, pace: Duration::from_millis(2), reconnects: false };
    let load = Load::start(teal.listen, shape);
    pace(pick(Duration::from_secs(2), Duration::from_secs(60)));
    let records = load.stop();
    let failed: Vec<_> = records.iter().filter(|record| !record.is_good()).collect();
    assert!(failed.is_empty(), "{} of {} failed: {}", failed.len(), records.len(), failed[0]);
    let logs = nginx.finish();
    let posts = arrivals([&logs[..]], "POST");
    let twice = posts.values().filter(|count| **count > 1).count();
    assert_eq!(twice, 0, "of {} POSTs", posts.len());
    println!(
        "http2, nginx: {} requests over about {} connections, none failed; {} POSTs, none twice",
        records.len(),
        logs.len() / LIFE,
        posts.len()
    );
}
