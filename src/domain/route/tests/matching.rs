//! Which route a request takes.

use super::*;

fn route(name: &str, matches: Match) -> Route {
    Route { matches, ..Route::new(name) }
}

#[test]
fn without_routes_everything_is_forwarded_as_it_is() {
    let routes = Routes::default();
    assert_eq!((routes.find(&get("/a/../b"), "/a/../b"), routes.by_path()), (Some(0), false));
    assert_eq!(routes[0], Route::new("default"));
    assert_eq!(routes[0].action, Action::Forward(Rewrite::default()));
}

#[test]
fn the_first_route_that_matches_is_taken() {
    let routes = Routes::new(vec![
        route("exact", Match { path: Some(PathTest::Exact("/a".into())), ..Match::default() }),
        route("posts", Match { path: prefix("/a"), methods: vec!["POST".into(), "PUT".into()], ..Match::default() }),
        route(
            "beta",
            Match {
                path: prefix("/a"),
                conditions: vec![
                    Condition::Query("beta".into(), Test::Present),
                    Condition::Header("x-team".into(), Test::Exact("a".into())),
                ],
                ..Match::default()
            },
        ),
        route("regex", Match { path: Some(PathTest::Regex(pattern("/v[0-9]+/.*"))), ..Match::default() }),
    ]);
    let team: &[(&str, &str)] = &[("x-team", "a")];
    let table = [
        (get("/a"), Some(0)),
        (get("/a?x"), Some(0)),
        (get("/a/b"), None),
        (Request { method: "POST", ..get("/a/b") }, Some(1)),
        (Request { method: "post", ..get("/a/b") }, None),
        (Request { headers: team, ..get("/a/b?beta") }, Some(2)),
        (get("/a/b?beta"), None),
        (get("/v12/x"), Some(3)),
        (get("/v12"), None),
        (get("/x/v1/y"), None),
        (get("*"), None),
    ];
    for (request, expected) in table {
        assert_eq!(routes.find(&request, request.path()), expected, "{} {}", request.method, request.target);
    }
    assert!(routes.by_path());
}

#[test]
fn a_request_is_decided_by_all_readings_of_its_path() {
    let closed = route("closed", Match { path: prefix("/admin"), ..Match::default() });
    let routes = Routes::new(vec![closed, Route::new("rest")]);
    let decided = |target: &str| decide(target, |path| (routes.find(&get(target), path), routes.by_path()));
    let ambiguous = Err(path::AmbiguousPath);
    let table = [
        ("/admin/x", Ok(Some(0))),
        ("/x", Ok(Some(1))),
        ("/%61dmin", Ok(Some(0))),
        ("/x%2Fy//z;v=1", Ok(Some(1))),
        ("//admin", ambiguous),
        ("/x/..%2fadmin", ambiguous),
        ("/x/../admin", ambiguous),
        ("/..;/admin", ambiguous),
    ];
    for (target, expected) in table {
        assert_eq!(decided(target), expected, "{target}");
    }
    let trivial = Routes::default();
    assert_eq!(decide("/x/..%2fadmin", |path| (trivial.find(&get("/"), path), trivial.by_path())), Ok(Some(0)));
}

#[test]
fn an_edit_by_path_makes_odd_paths_matter() {
    let edit = PathEdit::Regex(pattern("/v1/(.*)"), Replacement::new("/{1}", &pattern("/v1/(.*)")).unwrap());
    let rewrite = |path| Route { action: Action::Forward(Rewrite { path, host: None }), ..Route::new("a") };
    assert!(Routes::new(vec![rewrite(edit)]).by_path());
    assert!(!Routes::new(vec![rewrite(PathEdit::Whole("/".into()))]).by_path());
}

#[test]
fn limits_and_upgrades() {
    let limits = Limits { body: Some(10), head: Some(100), headers: Some(2) };
    assert!(limits.refuses_body(11) && !limits.refuses_body(10));
    assert!(limits.refuses_head(101, 1) && limits.refuses_head(1, 3) && !limits.refuses_head(100, 2));
    let none = Limits::default();
    assert!(!none.refuses_body(u64::MAX) && !none.refuses_head(usize::MAX, usize::MAX));
    let route = Route::new("a");
    assert!(route.allows_upgrade("WebSocket") && !route.allows_upgrade("h2c"));
}
