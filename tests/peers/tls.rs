//! TLS with those who make it elsewhere: curl and OpenSSL, Python's `http.client` and `httpx`, nginx as an endpoint.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use crate::forge::Authority;
use crate::support::curl::{curl, said};
use crate::support::free_address;
use crate::support::nginx::Nginx;
use crate::support::process::peer;
use crate::support::python;
use crate::support::slow::Slow;
use crate::support::teal::Teal;

/// Teal behind TLS as `shop.test`, in front of what is at `url`; and who vouches for it.
struct Scene {
    teal: Teal,
    folder: tempfile::TempDir,
    clients: Authority,
}

impl Scene {
    /// `more` are further keys of the listener's `tls`, `top` further lines of the file.
    fn start(folder: tempfile::TempDir, url: &str, more: &str, top: &str) -> Scene {
        let (authority, clients) = (Authority::new("Servers"), Authority::new("Clients"));
        let beside = Teal::beside(folder.path());
        authority.issue(&["shop.test"]).write(&beside, "shop");
        clients.issue(&["ann.test"]).write(folder.path(), "ann");
        std::fs::write(beside.join("clients.crt"), &clients.pem).unwrap();
        std::fs::write(folder.path().join("ca.crt"), &authority.pem).unwrap();
        let listen = |listen| {
            let tls = format!("tls: {{ certificates: {{ cert: shop.crt, key: shop.key }}{more} }}");
            format!("[{{ address: '{listen}', {tls}, hsts: {{ max_age: 30days }} }}]")
        };
        let rest = format!("{top}\nservices:\n  shop:\n    pools: {{ blue: '{url}' }}\n    health: off\n");
        let teal = Teal::listening(folder.path(), listen, &rest);
        Scene { teal, folder, clients }
    }

    /// In front of an nginx that stores what is put and tells what it was told.
    fn before_nginx(more: &str) -> (Scene, Nginx) {
        let folder = tempfile::tempdir().unwrap();
        let server = "location / { return 200 \"$http_x_forwarded_proto $http_x_client_cert_subject.\"; }\n\
                      location /up/ { dav_methods PUT; create_full_put_path on; }\nclient_max_body_size 100m;";
        let nginx = Nginx::start(folder.path(), "told", "", server);
        (Scene::start(folder, &nginx.url(), more, ""), nginx)
    }

    fn url(&self, name: &str, path: &str) -> String {
        format!("https://{name}:{}{path}", self.teal.listen.port())
    }

    /// curl with these arguments, to `name`.
    fn curl(&self, arguments: &[&str], name: &str, path: &str) -> Output {
        let resolve = format!("{name}:{}:127.0.0.1", self.teal.listen.port());
        let url = self.url(name, path);
        curl(self.folder.path(), &[&["--cacert", "ca.crt", "--resolve", &resolve], arguments, &[&url]].concat())
    }

    fn said(&self, arguments: &[&str], path: &str) -> String {
        let output = self.curl(arguments, "shop.test", path);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// curl's own code for a peer that did not prove who it is.
const NOT_VERIFIED: i32 = 60;

#[test]
fn curl_over_tls() {
    let (scene, nginx) = Scene::before_nginx("");
    for version in ["--http1.0", "--http1.1", "--http2"] {
        for tls in [&["--tlsv1.2", "--tls-max", "1.2"][..], &["--tlsv1.3"]] {
            let arguments =
                [&[version][..], tls, &["-w", "%{http_code} %{http_version} %{ssl_verify_result}"]].concat();
            // Whoever speaks HTTP/1.0 is answered by 1.1, as RFC 9110 section 2.5 wants it.
            let number = if version == "--http2" { "2" } else { "1.1" };
            assert_eq!(scene.said(&arguments, "/"), format!("https .200 {number} 0"), "{arguments:?}");
        }
    }
    let two = ["--http1.1", "-o", "first", "-w", "%{num_connects} "];
    let url = scene.url("shop.test", "/again");
    assert_eq!(scene.said(&[&two[..], &[&url, "-o", "second"]].concat(), "/"), "1 0 ", "the connection is kept");
    let body: Vec<u8> = (0..3_000_017u32).map(|n| (n * 7 % 251) as u8).collect();
    std::fs::write(scene.folder.path().join("body"), &body).unwrap();
    for (version, name) in [("--http1.1", "one"), ("--http2", "two")] {
        let code = scene.said(&[version, "-T", "body", "-w", "%{http_code}"], &format!("/up/{name}"));
        assert_eq!(code, "201", "{version}");
        assert!(std::fs::read(nginx.files().join("up").join(name)).unwrap() == body, "{version}: as sent");
    }
    let head = scene.said(&["--http1.1", "-I"], "/").to_lowercase();
    assert_eq!(head.matches("strict-transport-security: max-age=2592000\r\n").count(), 1, "{head}");
    let other = scene.curl(&[], "other.test", "/");
    assert_eq!(other.status.code(), Some(NOT_VERIFIED), "the name counts: {other:?}");
    let plain = format!("http://127.0.0.1:{}/", scene.teal.listen.port());
    assert!(said(scene.folder.path(), &[&plain]).contains("https://"), "a sentence for who comes in the clear");
    println!("tls, curl: HTTP/1.0, 1.1 and 2 over TLS 1.2 and 1.3, kept connections, uploads of 3 MB as sent");
}

#[test]
fn curl_with_a_certificate_of_its_own() {
    let (scene, _nginx) = Scene::before_nginx(", client_auth: required, client_ca: clients.crt");
    let own = ["--cert", "ann.crt", "--key", "ann.key"];
    for version in ["--http1.1", "--http2"] {
        let forged = ["-H", "X-Client-Cert-Subject: CN=root", version];
        assert_eq!(scene.said(&[&own[..], &forged].concat(), "/"), "https CN=ann.test.", "{version}");
    }
    assert!(!scene.curl(&[], "shop.test", "/").status.success(), "without one there is no answer");
    Authority::new("Forgers").issue(&["ann.test"]).write(scene.folder.path(), "forged");
    let forged = scene.curl(&["--cert", "forged.crt", "--key", "forged.key"], "shop.test", "/");
    assert!(!forged.status.success() && forged.stdout.is_empty(), "{forged:?}");
    assert!(scene.clients.pem.contains("BEGIN CERTIFICATE"));
    println!("tls, curl: client certificates, good, none and forged");
}

#[test]
fn openssl_resumes_its_session() {
    let (scene, _nginx) = Scene::before_nginx("");
    let connect = scene.teal.listen.to_string();
    let ask = |arguments: &[&str]| {
        let mut openssl = Command::new(peer("openssl", "openssl"))
            .args(["s_client", "-connect", &connect, "-servername", "shop.test", "-CAfile", "ca.crt"])
            .args(["-verify_return_error", "-verify_hostname", "shop.test"])
            .args(arguments)
            .current_dir(scene.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n";
        // The end of the answer ends it: tickets of TLS 1.3 come before that.
        let mut input = openssl.stdin.take().unwrap();
        input.write_all(request).unwrap();
        let output = openssl.wait_with_output().unwrap();
        drop(input);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains("HTTP/1.1 200 OK"), "{arguments:?}: {output:?}");
        text
    };
    for version in ["-tls1_2", "-tls1_3"] {
        let first = ask(&[version, "-ign_eof", "-sess_out", "session.pem"]);
        assert!(first.contains("New, TLSv1.") && first.contains("Verify return code: 0 (ok)"), "{version}: {first}");
        let second = ask(&[version, "-ign_eof", "-sess_in", "session.pem"]);
        assert!(second.contains("Reused, TLSv1."), "{version}: {second}");
    }
    let again = Command::new(peer("openssl", "openssl"))
        .args(["s_client", "-connect", &connect, "-servername", "shop.test", "-tls1_2", "-reconnect"])
        .current_dir(scene.folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&again.stdout).into_owned();
    assert_eq!(text.matches("Reused, TLSv1.2").count(), 5, "{text}");
    println!("tls, openssl: sessions of TLS 1.2 and 1.3 resumed, 5 of 5 reconnections");
}

fn run_python(scene: &Scene, name: &str, text: &str) -> String {
    let script = scene.folder.path().join(name);
    std::fs::write(&script, text).unwrap();
    let output = Command::new(python::with("httpx, h2", "httpx[http2]==0.28.1"))
        .arg(&script)
        .arg(scene.teal.listen.port().to_string())
        .current_dir(scene.folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn python_over_tls() {
    let (scene, nginx) = Scene::before_nginx("");
    println!("tls, http.client: {}", run_python(&scene, "client.py", HTTP_CLIENT));
    assert!(std::fs::read(nginx.files().join("up/py")).unwrap() == b"0123456789abcdef".repeat(5_000));
    println!("tls, httpx: {}", run_python(&scene, "httpx_client.py", HTTPX));
    assert!(std::fs::read(nginx.files().join("up/httpx")).unwrap() == b"0123456789abcdef".repeat(5_000));
}

/// A name that no server has is given to TLS and to `Host`, and the address to the socket.
const HTTP_CLIENT: &str = r#"
import http.client, socket, ssl, sys
context = ssl.create_default_context(cafile="ca.crt")
connection = http.client.HTTPSConnection("shop.test", int(sys.argv[1]), timeout=20, context=context)
connection._create_connection = lambda address, *rest: socket.create_connection(("127.0.0.1", address[1]), *rest)
connection.connect()
port = connection.sock.getsockname()[1]
body = b"0123456789abcdef" * 5000
for turn in range(200):
    kind = turn % 4
    if kind == 0:
        connection.request("GET", "/")
    elif kind == 1:
        connection.request("HEAD", "/")
    elif kind == 2:
        connection.request("PUT", "/up/py", body=body)
    else:
        chunks = (body[at:at + 7000] for at in range(0, len(body), 7000))
        connection.request("PUT", "/up/py", body=chunks, encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
    answer = connection.getresponse()
    said = answer.read()
    assert answer.status in ((200,) if kind < 2 else (201, 204)), (turn, answer.status, said)
    assert kind != 0 or said == b"https .", (turn, said)
    assert connection.sock is not None and connection.sock.getsockname()[1] == port, f"a new connection at {turn}"
print("200 requests (GET, HEAD, PUT with a length, PUT in chunks) on one connection")
"#;

/// The same with both versions, many at once. By HTTP/2 only what fits into a stream's first window is put at the same
/// time: two uploads that wait for windows on one connection wait for ever in `httpcore` 1.0, whoever the server is.
const HTTPX: &str = r#"
import asyncio, ssl, sys, httpx
context = ssl.create_default_context(cafile="ca.crt")
large, small = b"0123456789abcdef" * 5000, b"0123456789abcdef" * 3500
url = f"https://127.0.0.1:{sys.argv[1]}"
told = {"extensions": {"sni_hostname": "shop.test"}, "headers": {"Host": "shop.test"}}

async def pieces(body):
    for at in range(0, len(body), 7000):
        yield body[at:at + 7000]

async def one(client, version, number, body):
    if number % 3 == 0:
        answer = await client.get(url + "/", **told)
        assert answer.text == "https .", answer.text
    elif number % 3 == 1:
        answer = await client.head(url + "/", **told)
    else:
        answer = await client.put(url + "/up/httpx", content=pieces(body) if number % 2 else body, **told)
    assert answer.status_code in (200, 201, 204), (number, answer)
    assert answer.http_version == version, (number, answer.http_version)

async def main():
    for http2, version in ((False, "HTTP/1.1"), (True, "HTTP/2")):
        async with httpx.AsyncClient(http2=http2, verify=context, timeout=20, trust_env=False) as client:
            await one(client, version, 0, b"")
            for turn in range(10):
                some = (one(client, version, turn * 12 + number, small if http2 else large) for number in range(12))
                await asyncio.gather(*some)
            for number in range(12):
                await one(client, version, number, large)
    print("133 requests by HTTP/1.1 and 133 by HTTP/2, 12 at once")

asyncio.run(main())
"#;

#[test]
fn events_arrive_one_by_one_over_tls() {
    let (go_on, told) = mpsc::channel::<()>();
    let told = Mutex::new(told);
    // Every further event waits until the one before was seen at the client.
    let slow = Slow::scripted(move |_, out| {
        out.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for number in 0..3 {
            let event = format!("data: {number}\n\n");
            out.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())?;
            told.lock().unwrap().recv_timeout(Duration::from_secs(20)).map_err(std::io::Error::other)?;
        }
        out.write_all(b"0\r\n\r\n")
    });
    let scene = Scene::start(tempfile::tempdir().unwrap(), &slow.url(), "", "");
    let resolve = format!("shop.test:{}:127.0.0.1", scene.teal.listen.port());
    for version in ["--http1.1", "--http2"] {
        let mut curl = Command::new(peer("curl", "curl"))
            .args(["-sSN", "--max-time", "30", "--noproxy", "*", "--cacert", "ca.crt", "--resolve", &resolve, version])
            .arg(scene.url("shop.test", "/events?id=1"))
            .current_dir(scene.folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(curl.stdout.take().unwrap()).lines();
        for number in 0..3 {
            assert_eq!(lines.next().map(Result::unwrap), Some(format!("data: {number}")), "{version}");
            assert_eq!(lines.next().map(Result::unwrap), Some(String::new()));
            go_on.send(()).unwrap();
        }
        assert!(lines.next().is_none());
        assert!(curl.wait().unwrap().success());
    }
    println!("tls, events: 3 of 3 by HTTP/1.1 and 2 seen by curl before the upstream wrote the next");
}

/// nginx with a port over TLS beside its plain one; tells whom it sees.
fn secure_nginx(folder: &Path, inside: &Authority, clients: &Authority, listen: &str) -> Nginx {
    let files = folder.join("secure");
    std::fs::create_dir_all(&files).unwrap();
    inside.issue(&["blue.internal"]).write(&files, "blue");
    std::fs::write(files.join("clients.crt"), &clients.pem).unwrap();
    let server = format!(
        "{listen}\nssl_protocols TLSv1.2 TLSv1.3; ssl_certificate blue.crt; ssl_certificate_key blue.key;\n\
         ssl_client_certificate clients.crt; ssl_verify_client optional;\nkeepalive_requests 1000;\n\
         location / {{ return 200 \"$ssl_protocol $ssl_server_name $ssl_client_s_dn $connection_requests\"; }}\n\
         location /who {{ return 200 \"$proxy_protocol_addr $http_x_forwarded_for\"; }}"
    );
    Nginx::start(folder, "secure", "", &server)
}

/// Teal in front of an endpoint over TLS, with these keys of its pool.
fn before(folder: &Path, inside: &Authority, endpoint: &str, pool: &str) -> Teal {
    std::fs::write(Teal::beside(folder).join("ca.crt"), &inside.pem).unwrap();
    let rest = format!(
        "services:\n  shop:\n    pools: {{ blue: {{ endpoints: '{endpoint}', {pool} }} }}\n    health: {{ path: /, interval: 100ms, timeout: 10s, unhealthy_after: 50 }}\n"
    );
    Teal::start(folder, &rest)
}

#[test]
fn nginx_as_a_secure_endpoint() {
    let (inside, clients) = (Authority::new("Inside"), Authority::new("Clients"));
    let nginx_folder = tempfile::tempdir().unwrap();
    let secure = free_address();
    let _nginx = secure_nginx(nginx_folder.path(), &inside, &clients, &format!("listen {secure} ssl;"));
    let endpoint = format!("https://{secure}");
    let folder = tempfile::tempdir().unwrap();
    clients.issue(&["teal.internal"]).write(&Teal::beside(folder.path()), "teal");
    let pool = "tls: { ca: ca.crt, server_name: blue.internal, client_cert: teal.crt, client_key: teal.key }";
    let teal = before(folder.path(), &inside, &endpoint, pool);
    let url = format!("http://{}/", teal.listen);
    let mut most = 0;
    for _ in 0..20 {
        let text = said(folder.path(), &[&url]);
        let words: Vec<_> = text.split(' ').collect();
        assert_eq!(words[..3], ["TLSv1.3", "blue.internal", "CN=teal.internal"], "{text}");
        most = most.max(words[3].parse::<u32>().unwrap());
    }
    assert!(most >= 5, "connections to it are kept: at most {most} requests on one");
    let folder = tempfile::tempdir().unwrap();
    let teal = before(folder.path(), &inside, &endpoint, "tls: { ca: ca.crt, server_name: green.internal }");
    let url = format!("http://{}/", teal.listen);
    let code = said(folder.path(), &["-o", "out", "-w", "%{http_code}", &url]);
    assert!(code == "502" || code == "503", "whoever it is, it is not green: {code}");
    println!(
        "tls, nginx as endpoint: verified, shown our certificate, {most} of 20 requests on one connection; another name refused"
    );
}

#[test]
fn nginx_as_an_endpoint_that_wants_proxy_headers() {
    let (inside, clients) = (Authority::new("Inside"), Authority::new("Clients"));
    for version in ["v1", "v2"] {
        let nginx_folder = tempfile::tempdir().unwrap();
        let (plain, secure) = (free_address(), free_address());
        let listen = format!("listen {plain} proxy_protocol; listen {secure} ssl proxy_protocol;");
        let _nginx = secure_nginx(nginx_folder.path(), &inside, &clients, &listen);
        for (endpoint, tls) in [
            (format!("http://{plain}"), ""),
            (format!("https://{secure}"), ", tls: { ca: ca.crt, server_name: blue.internal }"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let teal = before(folder.path(), &inside, &endpoint, &format!("proxy_protocol: {version}{tls}"));
            let url = format!("http://{}/who", teal.listen);
            for source in ["127.0.0.1", "127.0.0.9", "127.0.0.1"] {
                let text = said(folder.path(), &["--interface", source, &url]);
                assert_eq!(text, format!("{source} {source}"), "{version} {endpoint}");
            }
        }
    }
    println!("tls, nginx as endpoint: PROXY protocol v1 and v2, plain and before TLS: the client's address each time");
}
