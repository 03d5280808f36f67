//! Headers, cookies, query parameters, addresses, schemes; patterns and their limits.

use proptest::prelude::*;

use super::*;

#[test]
fn conditions_look_at_headers_and_cookies() {
    let header = |test| Condition::Header("x-canary".into(), test);
    let cookie = |test| Condition::Cookie("qa".into(), test);
    let table = [
        (header(Test::Exact("always".into())), &[("x-canary", "always")][..], true),
        (header(Test::Exact("always".into())), &[("x-canary", "Always")], false),
        (header(Test::Prefix("al".into())), &[("x-canary", "always")], true),
        (header(Test::Regex(pattern("(?i)ALWAYS|never"))), &[("x-canary", "always")], true),
        (header(Test::Regex(pattern("alway"))), &[("x-canary", "always")], false),
        (header(Test::Present), &[("x-canary", "")], true),
        (header(Test::Present), &[], false),
        (header(Test::Regex(pattern(""))), &[], false),
        (cookie(Test::Exact("1".into())), &[("cookie", "a=b; qa=1")], true),
        (cookie(Test::Exact("1".into())), &[("cookie", "xqa=1")], false),
        (cookie(Test::Regex(pattern("[0-9]+"))), &[("cookie", "qa=12; qa=x")], true),
        (cookie(Test::Present), &[("cookie", "qa")], false),
    ];
    for (condition, headers, expected) in table {
        let rule =
            Override { name: "qa".into(), conditions: vec![condition.clone()], pool: 1, even_when_rolled_back: false };
        assert_eq!(rule.matches(&Request { headers, ..get("/") }), expected, "{condition:?} {headers:?}");
    }
}

#[test]
fn conditions_look_at_clients_and_schemes() {
    let client = |networks: &[&str]| Condition::Client(networks.iter().map(|text| text.parse().unwrap()).collect());
    let table = [
        (client(&["10.0.0.0/8"]), "10.1.2.3", true),
        (client(&["10.0.0.0/8"]), "11.1.2.3", false),
        (client(&["192.168.0.0/16", "10.1.2.3/32"]), "10.1.2.3", true),
        (client(&["10.0.0.0/8"]), "::ffff:10.1.2.3", true),
        (client(&["2001:db8::/32"]), "2001:db8::1", true),
        (client(&["::/0"]), "10.1.2.3", false),
        (Condition::Scheme(Scheme::Http), "10.1.2.3", true),
        (Condition::Scheme(Scheme::Https), "10.1.2.3", false),
    ];
    for (condition, client, expected) in table {
        let request = Request { client: client.parse().unwrap(), ..get("/") };
        assert_eq!(condition.passes(&request), expected, "{condition:?} {client}");
    }
    let secure = Request { scheme: Scheme::Https, ..get("/") };
    assert!(Condition::Scheme(Scheme::Https).passes(&secure));
}

#[test]
fn parameters_are_compared_as_forms_mean_them() {
    let table = [
        ("v=2", "v", Some(&b"2"[..])),
        ("a=1&v=2&v=3", "v", Some(b"2")),
        ("v", "v", Some(b"")),
        ("v=", "v", Some(b"")),
        ("v=a=b", "v", Some(b"a=b")),
        ("v=a+b%20c", "v", Some(b"a b c")),
        ("%76=%32", "v", Some(b"2")),
        ("v=%", "v", Some(b"%")),
        ("v=%4", "v", Some(b"%4")),
        ("v=%zz%ff", "v", Some(b"%zz\xff")),
        ("V=2", "v", None),
        ("vv=2", "v", None),
        ("a=v=2", "v", None),
        ("a;v=2", "v", None),
        ("&&=&v=2", "v", Some(b"2")),
        ("", "v", None),
        ("", "", None),
        ("=x", "", Some(b"x")),
    ];
    for (query, name, expected) in table {
        assert_eq!(parameter(query, name).as_deref(), expected, "{query}");
    }
    let condition = Condition::Query("v".into(), Test::Regex(pattern("[23]")));
    assert!(condition.passes(&get("/?v=2")) && !condition.passes(&get("/?v=23")) && !condition.passes(&get("/v=2")));
}

#[test]
fn patterns_have_limits_and_say_what_is_wrong() {
    let refused = |text: &str| text.parse::<Pattern>().expect_err(text);
    assert_eq!(refused(&"a".repeat(LONGEST_PATTERN + 1)), InvalidPattern::TooLong);
    assert_eq!(refused("(([a-z]{1,100}){1,100}){1,100}"), InvalidPattern::TooLarge);
    assert_eq!(refused("a("), InvalidPattern::Syntax("unclosed group".into()));
    for text in ["a)|(b", "[", "(?=a)", r"(a)\1", "*", "(?P<a", &"(".repeat(100), r"\p{Greek}"] {
        assert!(matches!(refused(text), InvalidPattern::Syntax(_)), "{text}");
    }
    assert_eq!(pattern("a|b"), pattern("a|b"));
    assert!(pattern("a|bc").matches(b"a") && !pattern("a|bc").matches(b"ac"), "anchored as a whole");
    assert!(!pattern("a").matches(b"a\n"), "a line end is not the end");
}

proptest! {
    #[test]
    fn any_text_as_a_pattern_and_any_query_end(text in "\\PC{0,60}", query in "[a-z=&%+0-9]{0,40}") {
        if let Ok(pattern) = text.parse::<Pattern>() {
            pattern.matches(query.as_bytes());
        }
        prop_assert!(parameter(&query, "a").is_none_or(|value| value.len() <= query.len()));
    }

    #[test]
    fn what_a_form_encodes_is_found(name in "[a-z ]{1,5}", value in prop::collection::vec(any::<u8>(), 0..20)) {
        let encode = |bytes: &[u8]| bytes.iter().map(|byte| format!("%{byte:02x}")).collect::<String>();
        let query = format!("other=1&{}={}", encode(name.as_bytes()), encode(&value));
        prop_assert_eq!(parameter(&query, &name).map(std::borrow::Cow::into_owned), Some(value));
    }
}
