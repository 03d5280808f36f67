//! Malformed and odd answers of upstreams: refused, cut, or passed on in one reading; and never mixed with the next.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use super::wire::{Scripted, Then, ask, connect, ok, read_to_end, statuses, teal};
use crate::support::client::Client;
use crate::support::pace;

/// Answers that nobody may see: 502.
const REFUSED: &[&str] = &[
    // Framing.
    "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nevil!",
    "HTTP/1.1 200 OK\r\nContent-Length: 4\r\ncontent-length: 4\r\n\r\nevil",
    "HTTP/1.1 200 OK\r\nContent-Length: 4, 4\r\n\r\nevil",
    "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
    "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nevil",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nevil",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\nevil",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
    "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nevil",
    "HTTP/1.1 200 OK\r\nContent-Length: +4\r\n\r\nevil",
    "HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\nevil",
    "HTTP/1.1 200 OK\r\nContent-Length: 0x4\r\n\r\nevil",
    "HTTP/1.1 200 OK\r\nContent-Length: 4 4\r\n\r\nevil",
    "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551620\r\n\r\nevil",
    // Status lines.
    "HTTP/1.1 99 Low\r\nContent-Length: 4\r\n\r\nevil",
    "HTTP/1.1 099 Low\r\nContent-Length: 4\r\n\r\nevil",
    "HTTP/1.1 600 High\r\nContent-Length: 4\r\n\r\nevil",
    "HTTP/1.1 999 High\r\nContent-Length: 4\r\n\r\nevil",
    "HTTP/1.1 1000 High\r\nContent-Length: 4\r\n\r\nevil",
    "HTTP/1.1 20 OK\r\nContent-Length: 4\r\n\r\nevil",
    "HTTP/1.1 2000 OK\r\nContent-Length: 4\r\n\r\nevil",
    "HTTP/1.1 2OO OK\r\nContent-Length: 4\r\n\r\nevil",
    "HTTP/1.1 -20 OK\r\nContent-Length: 4\r\n\r\nevil",
    "HTTP/1.1 OK\r\nContent-Length: 4\r\n\r\nevil",
    "HTTP/1.1\r\nContent-Length: 4\r\n\r\nevil",
    "HTTP/1.1  200 OK\r\nContent-Length: 4\r\n\r\nevil",
    "HTTP/1.1\t200 OK\r\nContent-Length: 4\r\n\r\nevil",
    "HTTP/1.1 200OK\r\nContent-Length: 4\r\n\r\nevil",
    "HTTP/1.1 200 a\x00b\r\nContent-Length: 4\r\n\r\nevil",
    "HTTP/1.1 200 a\rb\r\nContent-Length: 4\r\n\r\nevil",
    "HTTP/2.0 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    "HTTP/2 200\r\nContent-Length: 4\r\n\r\nevil",
    "HTTP/1.2 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    "HTTP/0.9 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    "http/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    "ICY 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    "<html>evil</html>",
    "\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    " HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    "\x00HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    // Line ends, folds, names.
    "HTTP/1.1 200 OK\nContent-Length: 4\n\nevil",
    "HTTP/1.1 200 OK\nContent-Length: 4\r\n\r\nevil",
    "HTTP/1.1 200 OK\r\nContent-Length: 4\n\r\nevil",
    "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\nevil",
    "HTTP/1.1 200 OK\r\nX-A: 1\nContent-Length: 4\r\n\r\nevil",
    "HTTP/1.1 200 OK\r\nX-A: 1\rSet-Cookie: evil\r\nContent-Length: 4\r\n\r\nevil",
    "HTTP/1.1 200 OK\rContent-Length: 4\r\revil",
    "HTTP/1.1 200 OK\r\nX-A: 1\r\n folded\r\nContent-Length: 4\r\n\r\nevil",
    "HTTP/1.1 200 OK\r\n Content-Length: 4\r\n\r\nevil",
    "HTTP/1.1 200 OK\r\nContent-Length\r\n\r\nevil",
    "HTTP/1.1 200 OK\r\nContent-Length : 4\r\n\r\nevil",
    "HTTP/1.1 200 OK\r\n: 4\r\nContent-Length: 4\r\n\r\nevil",
    "HTTP/1.1 200 OK\r\nX A: 1\r\nContent-Length: 4\r\n\r\nevil",
    "HTTP/1.1 200 OK\r\nX-A: a\x00b\r\nContent-Length: 4\r\n\r\nevil",
    "HTTP/1.1 200 OK\r\nX-A: a\x7fb\r\nContent-Length: 4\r\n\r\nevil",
    // Interim answers that are none, and ends that come early.
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nevil",
    "HTTP/1.1 101 Switching Protocols\r\n\r\nevil",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\nevil\r\n\r\n",
    "HTTP/1.1 103 Early Hints\r\nContent-Length: 4\r\n\r\nevil",
    "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n",
    "HTTP/1.1 200 OK",
    "H",
    "",
];

/// Answers that begin well and are then cut: never passed on as whole.
const CUT: &[&str] = &[
    "Content-Length: 10\r\n\r\nshort",
    "Content-Length: 10\r\n\r\n",
    "Transfer-Encoding: chunked\r\n\r\n",
    "Transfer-Encoding: chunked\r\n\r\n5\r\nshort",
    "Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
    "Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n0\r\n",
    "Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n0\r\nX-A: 1\r\n",
    "Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n0\n\n",
    "Transfer-Encoding: chunked\r\n\r\n5\r\nshort!\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked\r\n\r\n5\r\nshort\n0\r\n\r\n",
    "Transfer-Encoding: chunked\r\n\r\n5\nshort\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked\r\n\r\n5 \r\nshort\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked\r\n\r\n0x5\r\nshort\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked\r\n\r\n-5\r\nshort\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked\r\n\r\n\r\nshort\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked\r\n\r\n10000000000000005\r\nshort\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n0\r\nX-A : 1\r\n\r\n",
    "Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n0\r\nX-A\r\n\r\n",
    "Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n0\r\nX-A: 1\r\n folded\r\n\r\n",
];

/// Odd answers that are taken: what comes, and the status and body that go down.
const TAKEN: &[(&str, u16, &str)] = &[
    ("HTTP/1.1 200\r\nContent-Length: 4\r\n\r\nfine", 200, "fine"),
    ("HTTP/1.1 200 \r\nContent-Length: 4\r\n\r\nfine", 200, "fine"),
    ("HTTP/1.1 200 All is well, \tindeed\r\nContent-Length: 4\r\n\r\nfine", 200, "fine"),
    ("HTTP/1.1 200 \u{e9}\r\nContent-Length: 4\r\n\r\nfine", 200, "fine"),
    ("HTTP/1.1 299 Odd\r\ncontent-length:0004\r\n\r\nfine", 299, "fine"),
    ("HTTP/1.1 599 Odd\r\nContent-Length: 4\r\n\r\nfine", 599, "fine"),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding:CHUNKED\r\n\r\n04;x=\"\\\"\"\r\nfine\r\n0\r\n\r\n", 200, "fine"),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nf\r\n3\r\nine\r\n00;x\r\nX-A: 1\r\n\r\n", 200, "fine"),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, ""),
    ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, ""),
    ("HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
    ("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", 204, ""),
    ("HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n", 304, ""),
    ("HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", 304, ""),
    ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine", 200, "fine"),
    ("HTTP/1.1 200 OK\r\nX-A:\r\nX-A: \t1 \t\r\nX-B: \u{e9}\r\nContent-Length: 4\r\n\r\nfine", 200, "fine"),
    ("HTTP/1.1 200 OK\r\nConnection: close, x-a\r\nX-A: 1\r\nContent-Length: 4\r\n\r\nfine", 200, "fine"),
    (
        "HTTP/1.1 426 Upgrade Required\r\nUpgrade: h2c\r\nConnection: upgrade\r\nContent-Length: 4\r\n\r\nfine",
        426,
        "fine",
    ),
];

/// Answers with bytes too many: what is whole goes down, the rest must never answer anybody.
const TRAILED: &[(&str, &str)] = &[
    ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"),
    ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n"),
    ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
    ("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 38\r\n\r\n"),
    ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 38\r\n\r\n"),
    ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 38\r\n\r\n"),
    ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("HEAD", "HTTP/1.1 404 Not Found\r\nContent-Length: 38\r\n\r\n"),
];

const EVIL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";

/// An upstream that answers `/N` with the N-th of `answers` and closes, and everything else as it should.
fn reciting(answers: Vec<Vec<u8>>) -> Scripted {
    Scripted::start(move |asked, talk| match asked.target().trim_start_matches('/').parse::<usize>() {
        Ok(number) => {
            talk.say(&answers[number]);
            Then::Close
        }
        Err(_) => {
            talk.say(ok("next"));
            Then::Keep
        }
    })
}

fn get(target: impl std::fmt::Display) -> String {
    format!("GET /{target} HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n")
}

#[test]
fn malformed_answers_are_502_and_nothing_of_them_goes_down() {
    let huge = format!("HTTP/1.1 200 OK\r\nX-A: {}\r\nContent-Length: 4\r\n\r\nevil", "x".repeat(64 * 1024));
    let endless = format!("HTTP/1.1 200 OK\r\nX-A: {}", "x".repeat(200 * 1024));
    let fields = format!("HTTP/1.1 200 OK\r\n{}Content-Length: 4\r\n\r\nevil", "X-A: 1\r\n".repeat(256));
    let options = format!("HTTP/1.1 200 OK\r\nConnection: {}\r\nContent-Length: 4\r\n\r\nevil", "a,".repeat(1_000));
    let flood = format!("{}{EVIL}", "HTTP/1.1 100 Continue\r\n\r\n".repeat(17));
    let hints = format!("{}{EVIL}", "HTTP/1.1 103 Early Hints\r\nLink: </evil>\r\n\r\n".repeat(17));
    let more = [&huge, &endless, &fields, &options, &flood].map(String::as_str);
    let answers: Vec<_> = REFUSED.iter().copied().chain(more).collect();
    let blue = reciting(answers.iter().map(|answer| answer.as_bytes().to_vec()).collect());
    let teal = teal(blue.address, "retry: off", "");
    for (number, answer) in answers.iter().enumerate() {
        let got = ask(teal.address, get(number).as_bytes());
        // An interim answer that came before the fault has gone down already, as it should.
        let last = statuses(&got).into_iter().filter(|status| *status != 103).collect::<Vec<_>>();
        assert_eq!((last, got.contains("evil")), (vec![502], false), "{:.100}: {got}", answer.escape_debug());
        assert!(ask(teal.address, get("next").as_bytes()).ends_with("\r\n\r\nnext"));
    }
    drop(teal);
    let blue = reciting(vec![hints.into_bytes()]);
    let teal = super::wire::teal(blue.address, "", "");
    let got = statuses(&ask(teal.address, get(0).as_bytes()));
    assert_eq!((got.len(), got[16]), (17, 502), "sixteen hints are enough");
}

#[test]
fn answers_that_break_off_never_look_whole() {
    let versions = |rest: &str| format!("HTTP/1.1 200 OK\r\n{rest}").into_bytes();
    let blue = reciting(CUT.iter().copied().map(versions).collect());
    let teal = teal(blue.address, "", "");
    for (number, answer) in CUT.iter().enumerate() {
        let mut client = Client::connect(teal.address);
        client.send(&get(number));
        assert_eq!(client.answer(), None, "{answer:?}");
        // A client of HTTP/1.0 knows no chunks: only a reset tells it.
        let got = ask(teal.address, get(number).replace("1.1", "1.0").as_bytes());
        let told = answer.starts_with("Content-Length") || got.ends_with("<ConnectionReset>");
        assert!(told, "{answer:?}: {got:?}");
        assert!(ask(teal.address, get("next").as_bytes()).ends_with("\r\n\r\nnext"));
    }
}

#[test]
fn odd_answers_go_down_in_canonical_form() {
    let blue = reciting(TAKEN.iter().map(|(answer, ..)| answer.as_bytes().to_vec()).collect());
    let teal = teal(blue.address, "", "");
    for (number, (answer, status, body)) in TAKEN.iter().enumerate() {
        let mut client = Client::connect(teal.address);
        client.send(&format!("GET /{number} HTTP/1.1\r\nHost: shop.test\r\n\r\n{}", get("next")));
        let got = if *status == 304 { client.head() } else { client.answer() };
        let got = got.unwrap_or_else(|| panic!("{answer:?} is cut"));
        assert_eq!((got.status, got.body.as_str()), (*status, *body), "{answer:?}");
        assert_eq!((got.header("x-a"), got.header("upgrade")), (got.header("x-b").map(|_| ""), None), "{answer:?}");
        assert_eq!(client.answer().map(|next| next.body).as_deref(), Some("next"), "behind {answer:?}");
    }
}

#[test]
fn bytes_behind_an_answer_answer_nobody() {
    for late in [false, true] {
        let said = Arc::new(AtomicUsize::new(0));
        let saying = Arc::clone(&said);
        let blue = Scripted::start(move |asked, talk| {
            match asked.target().trim_start_matches('/').parse::<usize>() {
                Ok(number) if late => {
                    talk.say(TRAILED[number].1);
                    pace(Duration::from_millis(20));
                    talk.say(EVIL);
                    saying.fetch_add(1, SeqCst);
                }
                Ok(number) => talk.say(format!("{}{EVIL}", TRAILED[number].1)),
                Err(_) => talk.say(ok("next")),
            }
            Then::Keep
        });
        let teal = teal(blue.address, "", "");
        for (number, (method, answer)) in TRAILED.iter().enumerate() {
            let got = ask(teal.address, get(number).replace("GET", method).as_bytes());
            assert!(!got.contains("evil"), "{method} {answer:?}: {got}");
            // What was written is there: on loopback nothing is under way.
            teal.until("the rest is said", || !late || said.load(SeqCst) > number);
            for _ in 0..3 {
                let got = ask(teal.address, get("next").as_bytes());
                assert!(got.ends_with("\r\n\r\nnext"), "after {method} {answer:?}, late {late}: {got}");
            }
        }
    }
}

#[test]
fn an_answer_before_the_question_answers_nobody() {
    let said = Arc::new(AtomicUsize::new(0));
    let saying = Arc::clone(&said);
    // Some servers say 408 to an idle connection before they close it.
    let blue = Scripted::start(move |_, talk| {
        talk.say(ok("fine"));
        pace(Duration::from_millis(20));
        talk.say("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        saying.fetch_add(1, SeqCst);
        Then::Close
    });
    let teal = teal(blue.address, "", "");
    for number in 0..5 {
        assert!(ask(teal.address, get("").as_bytes()).ends_with("\r\n\r\nfine"));
        teal.until("it is said", || said.load(SeqCst) > number);
    }
}

#[test]
fn a_body_without_a_length_ends_with_its_connection() {
    for version in ["1.0", "1.1"] {
        let answer = format!("HTTP/{version} 200 OK\r\nX-A: 1\r\n\r\nup to the end");
        let blue = reciting(vec![answer.into_bytes()]);
        let teal = teal(blue.address, "", "");
        let mut client = Client::connect(teal.address);
        client.send(&format!("GET /0 HTTP/1.1\r\nHost: shop.test\r\n\r\n{}", get("next")));
        let got = client.answer().unwrap();
        assert_eq!((got.header("transfer-encoding"), got.body.as_str()), (Some("chunked"), "up to the end"));
        assert_eq!(client.answer().unwrap().body, "next");
        let old = ask(teal.address, b"GET /0 HTTP/1.0\r\nHost: shop.test\r\nConnection: keep-alive\r\n\r\n");
        assert!(old.ends_with("connection: close\r\n\r\nup to the end") && !old.contains("chunked"), "{old}");
    }
}

#[test]
fn a_stalled_upstream_is_told_from_a_slow_one() {
    let blue = Scripted::start(|asked, talk| {
        match asked.target() {
            "/silent" => drop(talk.take(1)),
            "/half-a-head" => {
                talk.say("HTTP/1.1 200 OK\r\nContent-");
                drop(talk.take(1));
            }
            "/half-a-body" => {
                talk.say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
                drop(talk.take(1));
            }
            _ => {
                talk.say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n");
                for _ in 0..10 {
                    pace(Duration::from_millis(150));
                    talk.say("x");
                }
            }
        }
        Then::Keep
    });
    let teal = teal(blue.address, "timeouts: { head: 1s, idle: 1s }", "");
    assert_eq!(statuses(&ask(teal.address, get("silent").as_bytes())), [504]);
    assert_eq!(statuses(&ask(teal.address, get("half-a-head").as_bytes())), [504]);
    let cut = ask(teal.address, get("half-a-body").as_bytes());
    assert!(cut.ends_with("\r\n\r\nhalf"), "{cut}");
    let mut stream = connect(teal.address);
    stream.write_all(get("slow").as_bytes()).unwrap();
    assert!(read_to_end(&mut stream).ends_with("xxxxxxxxxx"), "longer than either limit, but it moves");
}
