//! gRPC health checks against Google's own server and its own health service.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::process::Process;
use crate::support::teal::Teal;
use crate::support::{free_address, python, until};

#[test]
fn a_server_is_healthy_as_its_health_service_says() {
    let folder = tempfile::tempdir().unwrap();
    let python = python::with("grpc_health.v1.health", "grpcio-health-checking==1.85.1");
    let script = folder.path().join("health.py");
    std::fs::write(&script, SERVER).unwrap();
    let switch = folder.path().join("stopped");
    let address = free_address();
    let mut server = Command::new(&python);
    server.arg(&script).arg(address.to_string()).arg(&switch).stdin(Stdio::null()).stderr(Stdio::null());
    let _server = Process::start(&mut server);
    until("the gRPC server listens", Duration::from_secs(20), || std::net::TcpStream::connect(address).ok());

    let pool = format!("{{ endpoints: [http://{address}], protocol: h2 }}");
    let health = |grpc: &str| format!("health: {{ grpc: {grpc}, interval: 100ms, timeout: 5s }}");
    let reason = |teal: &Teal| {
        let status = teal.cli(&["status", "shop", "-o", "json"]);
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        let endpoint = &status["pools"][1]["endpoints"][0];
        (endpoint["health"].as_str().unwrap_or_default().to_owned(), endpoint["reason"].as_str().map(str::to_owned))
    };
    let shows = |teal: &Teal, health: &str, why: Option<&str>| {
        let expected = (health.to_owned(), why.map(str::to_owned));
        until(health, Duration::from_secs(20), || (reason(teal) == expected).then_some(()));
    };
    let cases = [
        ("{}", "healthy", None),
        ("{ service: shop.Cart }", "healthy", None),
        ("{ service: shop.Stock }", "unhealthy", Some("gRPC health says NOT_SERVING")),
        ("{ service: shop.Nothing }", "unhealthy", Some("gRPC health knows no service `shop.Nothing`")),
    ];
    for (grpc, state, why) in cases {
        let home = tempfile::tempdir().unwrap();
        let teal = Teal::shop(home.path(), &pool, &pool, &health(grpc), "");
        shows(&teal, state, why);
    }
    let teal = Teal::shop(folder.path(), &pool, &pool, &health("{ service: shop.Cart }"), "");
    shows(&teal, "healthy", None);
    std::fs::write(&switch, "").unwrap();
    shows(&teal, "unhealthy", Some("gRPC health says NOT_SERVING"));
    std::fs::remove_file(&switch).unwrap();
    shows(&teal, "healthy", None);
}

/// A server with the health service of its own package; `shop.Cart` stops while the file is there.
const SERVER: &str = r#"
import os, sys, time
from concurrent import futures
import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

servicer = health.HealthServicer()
status = health_pb2.HealthCheckResponse
servicer.set("", status.SERVING)
servicer.set("shop.Stock", status.NOT_SERVING)
server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
assert server.add_insecure_port(sys.argv[1])
server.start()
while True:
    servicer.set("shop.Cart", status.NOT_SERVING if os.path.exists(sys.argv[2]) else status.SERVING)
    time.sleep(0.02)
"#;
