//! Balancers in front and sockets that are no port: HAProxy and nginx before Teal, curl with what it can say itself.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::forge::Authority;
use crate::support::curl::{curl, said};
use crate::support::nginx::Nginx;
use crate::support::process::{Process, peer};
use crate::support::teal::Teal;
use crate::support::{free_address, until};

/// nginx that tells what it was told of the client.
fn telling(folder: &Path) -> Nginx {
    let server = "location / { return 200 \"$http_x_forwarded_for|$http_x_forwarded_proto|$http_x_forwarded_host|$http_x_forwarded_port\"; }";
    Nginx::start(folder, "told", "", server)
}

fn services(nginx: &Nginx, more: &str) -> String {
    format!("services:\n  shop:\n    pools: {{ blue: '{}' }}\n    health: off\n{more}", nginx.url())
}

/// HAProxy with this configuration, once it accepts at `listen`.
fn haproxy(folder: &Path, listen: SocketAddr, rest: &str) -> Process {
    let file = folder.join("haproxy.cfg");
    let text = format!(
        "global\n  maxconn 100\ndefaults\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n{rest}\n"
    );
    std::fs::write(&file, text).unwrap();
    let log = std::fs::File::create(folder.join("haproxy.log")).unwrap();
    let mut command = Command::new(peer("haproxy", "haproxy"));
    command.args(["-db", "-f"]).arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let mut process = Process::start(&mut command);
    until("HAProxy listens", Duration::from_secs(10), || {
        let log = std::fs::read_to_string(folder.join("haproxy.log")).unwrap();
        assert!(process.ended().is_none(), "HAProxy ended: {log}");
        std::net::TcpStream::connect(listen).ok()
    });
    process
}

#[test]
fn haproxy_in_front_names_the_client() {
    let folder = tempfile::tempdir().unwrap();
    let nginx = telling(folder.path());
    let authority = Authority::new("Servers");
    authority.issue(&["shop.test"]).write(&Teal::beside(folder.path()), "shop");
    std::fs::write(folder.path().join("ca.crt"), &authority.pem).unwrap();
    let (secure, fronts) = (free_address(), [free_address(), free_address(), free_address()]);
    let from = "proxy_protocol: { trusted: 127.0.0.1 }";
    let listen = |plain| {
        let tls = "tls: { certificates: { cert: shop.crt, key: shop.key } }";
        format!("[{{ address: '{plain}', {from} }}, {{ address: '{secure}', {tls}, {from} }}]")
    };
    let teal = Teal::listening(folder.path(), listen, &services(&nginx, ""));
    let front = |name: &str, at: SocketAddr, to: SocketAddr, how: &str| {
        format!("listen {name}\n  mode tcp\n  bind {at}\n  server teal {to} {how} source 127.0.0.1\n")
    };
    let rest = [
        front("one", fronts[0], teal.listen, "send-proxy"),
        front("two", fronts[1], teal.listen, "send-proxy-v2"),
        front("tls", fronts[2], secure, "send-proxy-v2"),
    ];
    let _haproxy = haproxy(folder.path(), fronts[0], &rest.concat());
    for source in ["127.0.0.7", "127.0.0.8"] {
        for at in &fronts[..2] {
            let url = format!("http://{at}/");
            let text = said(folder.path(), &["--interface", source, "-H", "X-Forwarded-For: 6.6.6.6", &url]);
            assert_eq!(text, format!("{source}|http|{at}|"));
        }
        let (resolve, url) =
            (format!("shop.test:{}:127.0.0.1", fronts[2].port()), format!("https://shop.test:{}/", fronts[2].port()));
        let text = said(folder.path(), &["--interface", source, "--cacert", "ca.crt", "--resolve", &resolve, &url]);
        assert_eq!(text, format!("{source}|https|shop.test:{}|", fronts[2].port()));
    }
    let around = curl(folder.path(), &["--interface", "127.0.0.7", &format!("http://{}/", teal.listen)]);
    assert!(!around.status.success() && around.stdout.is_empty(), "who comes around HAProxy is turned away");
    println!("edge, HAProxy in front: PROXY protocol v1, v2, v2 before TLS; who comes around it is turned away");
}

#[test]
fn curl_says_itself_whose_connection_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let nginx = telling(folder.path());
    let listen = |at| format!("{{ address: '{at}', proxy_protocol: {{ trusted: 127.0.0.0/8 }} }}");
    let teal = Teal::listening(folder.path(), listen, &services(&nginx, ""));
    let url = format!("http://{}/", teal.listen);
    let text = said(folder.path(), &["--haproxy-protocol", "--interface", "127.0.0.6", &url]);
    assert!(text.starts_with("127.0.0.6|http|"), "{text}");
    assert!(!curl(folder.path(), &[&url]).status.success(), "without a header there is no answer");
}

#[test]
fn a_unix_socket_in_front_and_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (front, behind) = (folder.path().join("teal.sock"), folder.path().join("app.sock"));
    let server =
        format!("listen unix:{}; location / {{ return 200 \"$http_x_forwarded_for $http_host\"; }}", behind.display());
    let _nginx = Nginx::start(folder.path(), "told", "", &server);
    let listen = |at| format!("['{at}', {{ address: 'unix:{}', mode: '0600' }}]", front.display());
    let rest = format!(
        "services:\n  shop:\n    pools: {{ blue: 'unix:{}' }}\n    health: {{ path: /, interval: 100ms, timeout: 10s, unhealthy_after: 50 }}\n",
        behind.display()
    );
    let mut teal = Teal::listening(folder.path(), listen, &rest);
    assert_eq!(std::fs::metadata(&front).unwrap().permissions().mode() & 0o777, 0o600);
    let path = front.to_str().unwrap();
    for version in ["--http1.0", "--http1.1"] {
        assert_eq!(said(folder.path(), &["--unix-socket", path, version, "http://shop.test/"]), "127.0.0.1 shop.test");
    }
    let before = free_address();
    let balancer =
        format!("listen {before}; location /x {{ proxy_pass http://unix:{path}:/; proxy_set_header Host shop.test; }}");
    let _front = Nginx::start(folder.path(), "front", "", &balancer);
    assert_eq!(said(folder.path(), &[&format!("http://{before}/x")]), "127.0.0.1 shop.test", "nginx by HTTP/1.0");
    teal.process().signal("TERM");
    teal.process().wait(Duration::from_secs(20));
    assert!(!front.exists(), "the socket's file is gone");
    println!("edge, Unix sockets: curl and nginx in front, nginx behind, the file's mode and end");
}

#[test]
fn nginx_in_front_ends_tls_and_is_believed() {
    let folder = tempfile::tempdir().unwrap();
    let nginx = telling(folder.path());
    let authority = Authority::new("Servers");
    let files = folder.path().join("front");
    std::fs::create_dir_all(&files).unwrap();
    authority.issue(&["shop.test"]).write(&files, "shop");
    std::fs::write(folder.path().join("ca.crt"), &authority.pem).unwrap();
    let listen = |at| format!("{{ address: '{at}', redirect_https: true }}");
    let rest = format!("client: {{ trusted: 127.0.0.1 }}\n{}", services(&nginx, ""));
    let teal = Teal::listening(folder.path(), listen, &rest);
    let (secure, plain) = (free_address(), free_address());
    let to_teal = format!(
        "proxy_pass http://{}; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host;\n\
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;\n\
         proxy_set_header X-Forwarded-Port $server_port;",
        teal.listen
    );
    let server = format!(
        "listen {secure} ssl; listen {plain}; ssl_certificate shop.crt; ssl_certificate_key shop.key;\n\
         location /in {{ {to_teal} }}"
    );
    let _front = Nginx::start(folder.path(), "front", "", &server);
    let resolve = format!("shop.test:{}:127.0.0.1", secure.port());
    let url = format!("https://shop.test:{}/in", secure.port());
    let arguments = [
        "--cacert",
        "ca.crt",
        "--resolve",
        &resolve,
        "--interface",
        "127.0.0.7",
        "-H",
        "X-Forwarded-For: 6.6.6.6",
        &url,
    ];
    let text = said(folder.path(), &arguments);
    assert_eq!(text, format!("6.6.6.6, 127.0.0.7, 127.0.0.1|https|shop.test|{}", secure.port()));
    let url = format!("http://{plain}/in?a=b");
    let sent = said(folder.path(), &["-o", "out", "-w", "%{http_code} %{redirect_url}", "-H", "Host: shop.test", &url]);
    assert_eq!(sent, "308 https://shop.test/in?a=b", "who came in the clear is sent to https");
    println!(
        "edge, nginx in front: its X-Forwarded-* believed and appended to; only who came in the clear is redirected"
    );
}

#[test]
fn curl_follows_to_https() {
    let folder = tempfile::tempdir().unwrap();
    let nginx = telling(folder.path());
    let authority = Authority::new("Servers");
    authority.issue(&["shop.test"]).write(&Teal::beside(folder.path()), "shop");
    std::fs::write(folder.path().join("ca.crt"), &authority.pem).unwrap();
    let secure = free_address();
    let listen = |at| {
        let tls = "tls: { certificates: { cert: shop.crt, key: shop.key } }";
        format!("[{{ address: '{at}', redirect_https: {} }}, {{ address: '{secure}', {tls} }}]", secure.port())
    };
    let teal = Teal::listening(folder.path(), listen, &services(&nginx, ""));
    let resolves = [teal.listen, secure].map(|at| format!("shop.test:{}:127.0.0.1", at.port()));
    let url = format!("http://shop.test:{}/a?b=c", teal.listen.port());
    let arguments = [
        "--cacert",
        "ca.crt",
        "--resolve",
        &resolves[0],
        "--resolve",
        &resolves[1],
        "-L",
        "-d",
        "a body",
        "-w",
        " %{num_redirects} %{url_effective}",
        &url,
    ];
    let text = said(folder.path(), &arguments);
    let expected = format!("127.0.0.1|https|shop.test:{0}| 1 https://shop.test:{0}/a?b=c", secure.port());
    assert_eq!(text, expected, "by 308, so that a POST stays one");
}
