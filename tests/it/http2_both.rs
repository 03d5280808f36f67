//! HTTP/2 on both sides, as gRPC uses it: streams both ways, trailers, answers that are all head, faults in gRPC's terms.

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, HeaderValue, Request};

use super::http2::peer::{Answer, Peer, post, run, whole};
use super::support::http2::{Act, Http2, Said, ok};
use super::support::teal::Teal;

fn before(upstream: &Http2) -> Teal {
    Teal::with(&[("blue", &upstream.pool("protocol: h2"))], "health: off")
}

fn call(path: &str) -> Request<()> {
    let request = Request::post(format!("http://shop.test{path}"));
    request.header("te", "trailers").header("content-type", "application/grpc+proto").body(()).unwrap()
}

async fn ask(teal: &Teal, request: Request<()>, body: &'static [u8]) -> Answer {
    Peer::connect(teal.address).await.ask(request, body).await.unwrap()
}

#[test]
fn a_call_goes_up_and_comes_down_as_it_is() {
    let upstream = Http2::start(|_| {
        let fields = vec![("content-type", "application/grpc+proto".to_owned())];
        Act::Answer(Said { fields, trailers: vec![("grpc-status", "0"), ("x-sum", "5")], ..ok("reply") })
    });
    let teal = before(&upstream);
    let mut request = call("/t.T/one");
    request.headers_mut().insert("grpc-timeout", HeaderValue::from_static("500m"));
    let answer = run(ask(&teal, request, b"message"));
    let trailers = answer.trailers.as_ref().unwrap();
    assert_eq!((answer.status, answer.text()), (200, "reply"));
    assert_eq!((&trailers["grpc-status"], &trailers["x-sum"]), (&"0".parse().unwrap(), &"5".parse().unwrap()));
    let arrived = &upstream.arrived()[0];
    assert_eq!(
        (arrived.line.as_str(), arrived.body.as_slice()),
        ("POST http://shop.test/t.T/one", b"message".as_slice())
    );
    assert_eq!((arrived.field("te"), arrived.field("grpc-timeout")), (Some("trailers"), Some("500m")));
    assert_eq!(arrived.field("content-type"), Some("application/grpc+proto"));
}

#[test]
fn messages_go_both_ways_in_turn_and_so_do_trailers() {
    let upstream = Http2::start(|_| Act::Echo);
    let teal = before(&upstream);
    run(async {
        let mut peer = Peer::connect(teal.address).await;
        let (answer, mut up) = peer.begin(call("/t.T/chat"), false).await;
        let (_, mut down) = answer.await.unwrap().into_parts();
        for word in ["one", "two", "three"] {
            up.send_data(Bytes::from_static(word.as_bytes()), false).unwrap();
            assert_eq!(down.data().await.unwrap().unwrap(), word);
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("x-over", HeaderValue::from_static("1"));
        up.send_trailers(trailers).unwrap();
        assert!(down.data().await.is_none());
        assert_eq!(down.trailers().await.unwrap().unwrap()["x-echoed"], "whole");
    });
}

#[test]
fn an_answer_that_is_all_head_stays_so() {
    let upstream = Http2::start(|_| {
        let fields = vec![("grpc-status", "9".to_owned()), ("grpc-message", "no".to_owned())];
        Act::Answer(Said { fields, ..ok("") })
    });
    let teal = before(&upstream);
    run(async {
        let mut peer = Peer::connect(teal.address).await;
        let (answer, _up) = peer.begin(call("/t.T/one"), true).await;
        let response = answer.await.unwrap();
        assert!(response.body().is_end_stream(), "the head ends the stream");
        assert_eq!((response.status().as_u16(), &response.headers()["grpc-status"]), (200, &"9".parse().unwrap()));
        assert!(whole(response).await.unwrap().trailers.is_none());
    });
}

#[test]
fn a_call_that_was_refused_is_made_again_with_its_message() {
    let upstream = Http2::start(|arrived| match arrived.number {
        1 => Act::Reset(Reason::REFUSED_STREAM),
        _ => Act::Answer(ok("taken")),
    });
    let teal = before(&upstream);
    let answer = run(ask(&teal, call("/t.T/one"), b"message"));
    assert_eq!((answer.status, answer.text()), (200, "taken"));
    let bodies: Vec<_> = upstream.arrived().into_iter().map(|arrived| arrived.body).collect();
    assert_eq!(bodies, [b"".to_vec(), b"message".to_vec()]);
}

#[test]
fn faults_reach_grpc_clients_in_their_own_terms() {
    let upstream = Http2::start(|arrived| match arrived.line.ends_with("/hang") {
        true => Act::Hang,
        false => Act::Reset(Reason::INTERNAL_ERROR),
    });
    let teal = Teal::with(
        &[("blue", &upstream.pool("protocol: h2"))],
        "health: off\nhosts: shop.test\ntimeouts: { head: 200ms }",
    );
    run(async {
        let elsewhere = Request::post("http://other.test/x").header("content-type", "application/grpc");
        for (request, status) in [(call("/t.T/one"), "14"), (call("/hang"), "14"), (elsewhere.body(()).unwrap(), "12")]
        {
            let path = request.uri().to_string();
            let answer = ask(&teal, request, b"message").await;
            assert_eq!((answer.status, answer.header("grpc-status")), (200, Some(status)), "{path}");
            assert!(answer.header("grpc-message").unwrap().contains("(request "), "{path}");
        }
        assert_eq!(ask(&teal, post("/"), b"message").await.status, 502);
    });
}

#[test]
fn a_client_that_cancels_ends_one_stream_of_the_shared_connection() {
    let upstream = Http2::start(|arrived| match arrived.line.ends_with("/hang") {
        true => Act::Hang,
        false => Act::Answer(ok("here")),
    });
    let teal = before(&upstream);
    run(async {
        let mut peer = Peer::connect(teal.address).await;
        assert_eq!(peer.get("/").await.text(), "here");
        let (answer, mut up) = peer.begin(call("/hang"), false).await;
        up.send_data(Bytes::from_static(b"a message"), false).unwrap();
        while upstream.count() < 2 {
            tokio::task::yield_now().await;
        }
        up.send_reset(Reason::CANCEL);
        drop(answer);
        while upstream.resets().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(upstream.resets(), [Reason::CANCEL]);
        assert_eq!(peer.get("/").await.text(), "here");
    });
    assert_eq!(upstream.connections(), 1);
}
