//! Routes on the request path: which one a request gets, where it goes by it, and what is said down instead.

use super::support::teal::{Teal, shop_text};
use super::support::upstream::{Act, Arrived, Upstream, ok};

/// Says what line arrived, and by which `Host`.
fn telling(request: &Arrived) -> Act {
    Act::Answer(ok(&format!("{} at {}", request.line, request.header("host").unwrap_or_default())))
}

/// Teal with these routes of a service without health checks.
fn routed(blue: &Upstream, routes: &str) -> Teal {
    let routes: String = routes.trim().lines().map(|line| format!("  - {}\n", line.trim())).collect();
    Teal::with(&[("blue", &blue.url())], &format!("health: off\nroutes:\n{routes}"))
}

#[test]
fn the_first_route_that_matches_says_what_happens() {
    let blue = Upstream::plain("blue");
    let teal = routed(
        &blue,
        "{ name: exact, match: { path: { exact: /a } }, request_headers: { set: { x-route: '{route}' } } }
         { name: get, match: { path: { prefix: /b }, methods: GET }, request_headers: { set: { x-route: '{route}' } } }
         { name: prefix, match: { path: { prefix: /b } }, request_headers: { set: { x-route: '{route}' } } }
         { name: regex, match: { path: { regex: '/c/[0-9]+' } }, request_headers: { set: { x-route: '{route}' } } }
         { name: header, match: { header: { x-team: payments } }, request_headers: { set: { x-route: '{route}' } } }
         { name: cookie, match: { cookie: { user: { present: true } } }, request_headers: { set: { x-route: '{route}' } } }
         { name: query, match: { query: { v: '2' } }, request_headers: { set: { x-route: '{route}' } } }",
    );
    let table = [
        ("GET /a", "", "exact"),
        ("GET /%61?x=1", "", "exact"),
        ("GET /b/c", "", "get"),
        ("POST /b/c", "", "prefix"),
        ("HEAD /b", "", "prefix"),
        ("GET /c/42", "", "regex"),
        ("GET /z", "X-Team: payments\r\n", "header"),
        ("GET /z", "Cookie: a=b; user=me\r\n", "cookie"),
        ("GET /z?u=1&v=2", "", "query"),
    ];
    for (begin, headers, route) in table {
        let mut client = teal.client();
        client.send(&format!("{begin} HTTP/1.1\r\nHost: shop.test\r\n{headers}\r\n"));
        assert_eq!(client.head().map(|answer| answer.status), Some(200), "{begin}");
        let request = blue.arrived().pop().unwrap();
        assert!(request.line.starts_with(begin), "{begin}: as it was sent, not {}", request.line);
        assert_eq!(request.header("x-route"), Some(route), "{begin} {headers}");
    }
    let mut client = teal.client();
    for (path, status) in [("/z", 404), ("/bc", 404), ("/c/42x", 404), ("/x/../b", 400), ("//b", 400), ("/x%2fb", 404)]
    {
        assert_eq!(client.get(path, "").status, status, "{path}");
    }
    assert_eq!(client.get("/b", "").status, 200, "the connection goes on");
    assert_eq!(blue.count(), table.len() as u64 + 1, "nothing else went up");
}

#[test]
fn where_no_decision_depends_on_the_path_it_goes_up_as_it_was_sent() {
    let blue = Upstream::start(telling);
    let teal = routed(&blue, "{ name: host, rewrite: { host: inside.test } }");
    for path in ["/x/../b", "//b", "/a%2Fb;c?d=%zz", "/%", "/a\\b", "/?", "*x"] {
        if path.starts_with('/') {
            let answer = teal.client().get(path, "");
            assert_eq!(answer.body, format!("GET {path} HTTP/1.1 at inside.test"));
        }
    }
    let mut client = teal.client();
    client.send("OPTIONS * HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    assert_eq!(client.answer().unwrap().body, "OPTIONS * HTTP/1.1 at inside.test");
}

#[test]
fn rewrites_change_the_target_and_keep_the_query() {
    let blue = Upstream::start(telling);
    let teal = routed(
        &blue,
        "{ name: prefix, match: { path: { prefix: /api } }, rewrite: { prefix: /v2, host: 'files.internal:8080' } }
         { name: root, match: { path: { prefix: /static } }, rewrite: { prefix: / } }
         { name: whole, match: { path: { exact: /rpc } }, rewrite: { path: /call } }
         { name: regex, match: { path: { prefix: /u } }, rewrite: { regex: '/u/(?<who>[a-z]+)/(.*)', replacement: '/{2}/of/{who}' } }",
    );
    let table = [
        ("/api", "/v2", "files.internal:8080"),
        ("/api/a?b=/c%20", "/v2/a?b=/c%20", "files.internal:8080"),
        ("/static", "/", "shop.test"),
        ("/static/x.css?v=1", "/x.css?v=1", "shop.test"),
        ("/static/%2F%2Fevil.test/", "/%2F%2Fevil.test/", "shop.test"),
        ("/rpc?m=1", "/call?m=1", "shop.test"),
        ("/u/ann/photos/1?s=2", "/photos/1/of/ann?s=2", "shop.test"),
        ("/u/Ann/photos", "/u/Ann/photos", "shop.test"),
    ];
    let mut client = teal.client();
    for (path, target, host) in table {
        assert_eq!(client.get(path, "").body, format!("GET {target} HTTP/1.1 at {host}"), "{path}");
    }
    let forwarded = blue.arrived();
    assert!(forwarded.iter().all(|request| request.all("host").len() == 1));
    assert_eq!(forwarded[0].header("x-forwarded-host"), Some("shop.test"), "what was asked for is not forgotten");
}

#[test]
fn redirects_say_where_and_ask_nobody() {
    let blue = Upstream::plain("blue");
    let teal = routed(
        &blue,
        "{ name: fixed, match: { path: { exact: /latest } }, redirect: { to: 'https://docs.test/x?y', status: 301 } }
         { name: parts, match: { path: { regex: '/v[0-9]/.*' } }, redirect: { scheme: https, host: old.test, port: 8443, regex: '/(v[0-9])/(.*)', replacement: '/{1}/{2}' } }
         { name: prefix, match: { path: { prefix: /old } }, redirect: { prefix: /new, status: 302 } }
         { name: path, match: { path: { exact: /home } }, redirect: { path: /docs, status: 303 } }
         { name: secure, match: { path: { prefix: /pay } }, redirect: { https: true, status: 308 } }
         { name: rest }",
    );
    let table = [
        ("/latest?z=1", 301, "https://docs.test/x?y"),
        ("/v1/a/b?c=d", 307, "https://old.test:8443/v1/a/b?c=d"),
        ("/old", 302, "/new"),
        ("/old/a?b=c", 302, "/new/a?b=c"),
        ("/home?q=1", 303, "/docs?q=1"),
        ("/pay/now?x=%0d", 308, "https://shop.test/pay/now?x=%0d"),
    ];
    let mut client = teal.client();
    for (path, status, location) in table {
        let answer = client.get(path, "");
        assert_eq!((answer.status, answer.all("location")), (status, vec![location]), "{path}");
        assert_eq!((answer.header("content-length"), answer.body.as_str()), (Some("0"), ""), "{path}");
    }
    assert_eq!(client.post("/old/up", "a body that nobody wants").header("location"), Some("/new/up"));
    client.send("HEAD /old/up HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    assert_eq!(client.head().map(|answer| answer.status), Some(302));
    assert_eq!(blue.count(), 0);
    assert_eq!(client.get("/else", "").body, "blue", "and the connection is in step");
    let mut old = teal.client();
    old.send("GET /pay/now HTTP/1.0\r\n\r\n");
    assert_eq!(old.answer().map(|answer| answer.status), Some(400), "no host to redirect to");
}

/// A listener that redirects, and a client network that is trusted to say how it was spoken to.
fn redirecting(blue: &Upstream, port: &str) -> Teal {
    let listen =
        format!("listen: {{ address: '127.0.0.1:0', redirect_https: {port} }}\nclient: {{ trusted: 127.0.0.1 }}");
    Teal::start(&shop_text("none", &[("blue", &blue.url())], "health: off").replace("listen: 127.0.0.1:0", &listen))
}

#[test]
fn a_listener_may_send_everybody_to_https() {
    let blue = Upstream::plain("blue");
    for (port, location) in [("true", "https://shop.test/a?b=c"), ("8443", "https://shop.test:8443/a?b=c")] {
        let teal = redirecting(&blue, port);
        let mut client = teal.client();
        for host in ["shop.test", "shop.test:8080"] {
            let answer = client.get_from(host, "/a?b=c", "");
            assert_eq!((answer.status, answer.header("location")), (308, Some(location)), "{host}");
        }
        assert_eq!(client.get_from("elsewhere.test", "/x/../y", "").status, 308, "before any service is asked");
        assert_eq!(client.get("/", "X-Forwarded-Proto: http\r\n").status, 308);
    }
    assert_eq!(blue.count(), 0);
}

#[test]
fn who_came_by_https_to_the_balancer_in_front_is_not_sent_in_circles() {
    let blue = Upstream::plain("blue");
    let teal = redirecting(&blue, "true");
    let answer = teal.client().get("/", "X-Forwarded-Proto: https\r\nX-Forwarded-For: 203.0.113.9\r\n");
    assert_eq!((answer.status, answer.body.as_str()), (200, "blue"));
    let routes = "health: off\nroutes: [{ name: secure, redirect: { https: true } }, { name: rest }]";
    let text = shop_text("none", &[("blue", &blue.url())], routes);
    let trusting = Teal::start(&text.replace("services:", "client: { trusted: 127.0.0.1 }\nservices:"));
    assert_eq!(trusting.client().get("/", "X-Forwarded-Proto: https\r\n").status, 200);
    assert_eq!(trusting.client().get("/", "").status, 307);
    let wary = Teal::start(&text);
    assert_eq!(wary.client().get("/", "X-Forwarded-Proto: https\r\n").status, 307, "who is not trusted only says so");
}

#[test]
fn fields_are_edited_on_the_way_up_by_route_then_pool() {
    let blue = Upstream::plain("blue");
    let pool = format!(
        "{{ endpoints: '{}', version: 4.2.0, request_headers: {{ set: {{ x-release: '{{version}}', x-both: pool }}, remove: cookie }} }}",
        blue.url()
    );
    let routes = "health: off\nroutes:\n  - name: all\n    request_headers:\n      set: { x-route: '{service}/{route} {{x}}', x-both: route, x-request-id: fixed }\n      add: { x-seen-by: ['{client}', '{pool}'], x-kept: more }\n      remove: [x-internal-user, x-forwarded-host, via]\n";
    let teal = Teal::with(&[("blue", &pool)], routes);
    let sent = "X-Route: forged\r\nx-route: twice\r\nX-Internal-User: root\r\nCookie: a=b\r\nX-Kept: one\r\nX-Release: forged\r\nX-Request-Id: mine\r\n";
    let answer = teal.client().get("/", sent);
    let request = blue.arrived().pop().unwrap();
    let table: [(&str, &[&str]); 9] = [
        ("x-route", &["shop/all {x}"]),
        ("x-both", &["pool"]),
        ("x-release", &["4.2.0"]),
        ("x-seen-by", &["127.0.0.1", "blue"]),
        ("x-kept", &["one", "more"]),
        ("x-internal-user", &[]),
        ("x-forwarded-host", &[]),
        ("cookie", &[]),
        ("x-request-id", &["fixed"]),
    ];
    for (name, values) in table {
        assert_eq!(request.all(name), values, "{name}");
    }
    assert_eq!(answer.all("x-route"), [""; 0], "edits of requests are not for answers");
}

#[test]
fn fields_are_edited_on_the_way_down_by_pool_then_route() {
    let blue = Upstream::start(|_| {
        let fields = "Server: secret/1\r\nX-Powered-By: y\r\nVary: accept\r\nX-Both: upstream\r\nSet-Cookie: a=b\r\n";
        Act::Answer(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 4\r\n\r\nblue").into_bytes())
    });
    let pool = format!(
        "{{ endpoints: '{}', version: '7', response_headers: {{ add: {{ vary: [x-team] }}, set: {{ x-both: pool }}, remove: [server, x-powered-by] }} }}",
        blue.url()
    );
    let more = "health: off\nsticky: teal_shop\nroutes:\n  - { name: moved, match: { path: { exact: /moved } }, redirect: { to: /there }, response_headers: { set: { cache-control: no-store, x-id: '{request_id}' }, remove: location } }\n  - { name: all, response_headers: { set: { x-answered-by: '{pool} {version}', x-both: route } } }";
    let teal = Teal::with(&[("blue", &pool)], more);
    let mut client = teal.client();
    let answer = client.get("/", "X-Request-Id: mine\r\n");
    assert_eq!((answer.status, answer.body.as_str()), (200, "blue"));
    let table: [(&str, &[&str]); 5] = [
        ("server", &[]),
        ("x-powered-by", &[]),
        ("vary", &["accept", "x-team"]),
        ("x-both", &["route"]),
        ("x-answered-by", &["blue 7"]),
    ];
    for (name, values) in table {
        assert_eq!(answer.all(name), values, "{name}");
    }
    let cookies = answer.all("set-cookie");
    assert!(cookies.len() == 2 && cookies[0] == "a=b" && cookies[1].starts_with("teal_shop="), "{cookies:?}");
    let known = cookies[1].split(';').next().unwrap();
    assert_eq!(client.get("/", &format!("Cookie: {known}\r\n")).all("set-cookie"), ["a=b"]);
    let redirect = client.get("/moved", "X-Request-Id: mine\r\n");
    assert_eq!(
        (redirect.status, redirect.header("cache-control"), redirect.header("x-id")),
        (307, Some("no-store"), Some("mine"))
    );
    assert_eq!(redirect.all("location"), [""; 0], "a redirect's own fields may be edited like any other");
}
