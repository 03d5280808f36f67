//! Where rewrites and redirects lead, and that they never lead where nobody wanted.

use proptest::prelude::*;

use super::*;

fn prefix_edit(from: &str, to: &str) -> PathEdit {
    PathEdit::Prefix { from: from.into(), to: to.into() }
}

fn regex_edit(regex: &str, replacement: &str) -> PathEdit {
    let pattern = pattern(regex);
    let replacement = Replacement::new(replacement, &pattern).unwrap();
    PathEdit::Regex(pattern, replacement)
}

#[test]
fn rewrites_change_the_path_and_keep_the_query() {
    let table = [
        (PathEdit::Keep, "//a/%61/../b?c=d?e", "//a/%61/../b?c=d?e"),
        (PathEdit::Whole("/new".into()), "/old/x?q=1", "/new?q=1"),
        (PathEdit::Whole("/new".into()), "*", "*"),
        (prefix_edit("/old", "/new"), "/old", "/new"),
        (prefix_edit("/old", "/new"), "/old/x?q=1", "/new/x?q=1"),
        (prefix_edit("/old", "/new"), "/old?", "/new?"),
        (prefix_edit("/old", "/"), "/old", "/"),
        (prefix_edit("/old", "/"), "/old/x", "/x"),
        (prefix_edit("/old", "/"), "/old//x", "/x"),
        (prefix_edit("/old/", "/new"), "/old/x", "/new/x"),
        (prefix_edit("/old/", "/new"), "/old/", "/new/"),
        (prefix_edit("/", "/new"), "/x", "/new/x"),
        (prefix_edit("/", "/new/"), "/", "/new/"),
        (prefix_edit("/old", "/new"), "/%6fld/%61%2fb", "/new/a%2Fb"),
        (prefix_edit("/old", "/new"), "/older", "/older"),
        (regex_edit("/v1/(.*)", "/v2/{1}"), "/v1/a/b?c", "/v2/a/b?c"),
        (regex_edit("/v1/(.*)", "/v2/{1}"), "/v3/%61", "/v3/%61"),
        (regex_edit("/(?<user>[a-z]+)/(\\d+)?", "/u/{user}-{2}.{{{0}}}"), "/ann/7", "/u/ann-7.{/ann/7}"),
        (regex_edit("/(a)?(b)?", "/{1}{2}"), "/b", "/b"),
        (regex_edit("(.*)", "{1}"), "//evil.com", "/evil.com"),
        (regex_edit("/(.*)", "{1}"), "/a", "/a"),
    ];
    for (path, target, expected) in table {
        let rewrite = Rewrite { path, host: None };
        assert_eq!(rewrite.target(target), expected, "{rewrite:?} {target}");
    }
}

#[test]
fn replacements_name_groups_that_are_there() {
    let two = pattern("/(a)(?<b>b)");
    for text in ["/{0}", "/{2}{b}", "/x", "{1}"] {
        assert!(Replacement::new(text, &two).is_ok(), "{text}");
    }
    for text in ["/{3}", "/{c}", "/{}", "/{", "/a b", "/\r\n", "/é", &"{1}".repeat(17)] {
        assert!(Replacement::new(text, &two).is_err(), "{text}");
    }
}

fn redirect(scheme: Option<Scheme>, host: Option<&str>, port: Option<u16>, path: PathEdit) -> Redirect {
    Redirect { status: 308, location: Location::Parts { scheme, host: host.map(str::to_owned), port, path } }
}

#[test]
fn redirects_change_parts_and_keep_the_rest() {
    let https = Some(Scheme::Https);
    let keep = || PathEdit::Keep;
    let table = [
        (redirect(https, None, None, keep()), "/a?b=c", Some("https://shop.example.com/a?b=c")),
        (redirect(https, None, Some(8443), keep()), "/a", Some("https://shop.example.com:8443/a")),
        (redirect(https, Some("new.org"), None, keep()), "//a", Some("https://new.org/a")),
        (redirect(None, Some("new.org"), None, keep()), "/a?", Some("//new.org/a")),
        (redirect(None, None, None, prefix_edit("/old", "/new")), "/old/x?y", Some("/new/x?y")),
        (redirect(None, None, None, prefix_edit("/", "/")), "//evil.com/x", Some("/evil.com/x")),
        (redirect(None, None, None, prefix_edit("/old", "/")), "/old//evil.com", Some("/evil.com")),
        (redirect(None, None, None, prefix_edit("/old", "/")), "/old/\\evil.com", Some("/evil.com")),
        (redirect(None, None, None, regex_edit("/go(.*)", "{1}")), "/go//evil.com", Some("/evil.com")),
        (redirect(https, None, None, keep()), "*", Some("https://shop.example.com/")),
        (
            Redirect { status: 301, location: Location::Fixed("https://x.org/?a".into()) },
            "/b?c",
            Some("https://x.org/?a"),
        ),
    ];
    for (redirect, target, expected) in table {
        assert_eq!(redirect.location(&get(target)).as_deref(), expected, "{redirect:?} {target}");
    }
}

#[test]
fn a_host_that_is_none_is_not_repeated() {
    let https = redirect(Some(Scheme::Https), None, None, PathEdit::Keep);
    let to = |host| https.location(&Request { host, ..get("/") });
    for host in ["", "a b", "x@evil.com", "evil.com/x", "a..b", "[::zz]", "x:80", "é", "a\r\nb: c"] {
        assert_eq!(to(host), None, "{host}");
    }
    assert_eq!(to("[::1]").as_deref(), Some("https://[::1]/"));
    assert_eq!(to("Shop.org.").as_deref(), Some("https://Shop.org./"));
    let fixed = redirect(Some(Scheme::Https), Some("x.org"), None, PathEdit::Keep);
    assert_eq!(fixed.location(&Request { host: "", ..get("/") }).as_deref(), Some("https://x.org/"));
}

fn edits() -> Vec<PathEdit> {
    let mut edits = vec![PathEdit::Keep, PathEdit::Whole("/w".into())];
    for (from, to) in [("/", "/"), ("/a", "/"), ("/a/", "/b"), ("/", "/b/"), ("/a", "/b")] {
        edits.push(prefix_edit(from, to));
    }
    for (regex, replacement) in [("(.*)", "{1}"), ("/a(.*)", "{1}"), ("/(.)(.*)", "/{2}{1}"), ("/a(/.*)?", "{1}")] {
        edits.push(regex_edit(regex, replacement));
    }
    edits
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn a_new_target_is_always_in_origin_form(target in "/([/a\\\\.;%?#]|%[0-9a-f]{2}|\\PC|\r|\n|\t| ){0,16}") {
        let (path, query) = target.split_once('?').map_or((target.as_str(), None), |(path, query)| (path, Some(query)));
        for edit in edits() {
            let new = Rewrite { path: edit, host: None }.target(&target).into_owned();
            if new == target {
                continue;
            }
            prop_assert!(new.starts_with('/') && !new.starts_with("//") && !new.starts_with("/\\"), "{}", new);
            prop_assert!(new.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#'), "{}", new);
            prop_assert_eq!(new.contains('?'), query.is_some(), "{} of {}", new, path);
        }
    }

    #[test]
    fn a_redirect_never_leads_to_another_host(target in "/([/a\\\\.;%?#@:]|evil\\.com|%[0-9a-f]{2}|\r|\n|\t| ){0,16}") {
        let request = get(&target);
        for edit in edits() {
            let here = redirect(None, None, None, edit.clone()).location(&request).unwrap();
            prop_assert!(here.starts_with('/') && !here.starts_with("//") && !here.starts_with("/\\"), "{}", here);
            prop_assert!(here.bytes().all(|byte| byte.is_ascii_graphic()), "{}", here);
            let there = redirect(Some(Scheme::Https), None, None, edit).location(&request).unwrap();
            prop_assert!(there.starts_with("https://shop.example.com/"), "{}", there);
        }
    }
}
