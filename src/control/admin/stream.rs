//! `GET /v1/events`: what happens, as it happens (server-sent events, WHATWG HTML 9.2).
//!
//! A follower reads the ring at its own pace; one that is slower than the ring sees a gap in the ids, and
//! costs nobody anything. A comment every 15 s keeps middle boxes from closing a quiet stream.
//!
//! Invariant: a stream holds at most [`AHEAD`] unread frames, and ends with the process.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use crate::control::admin::wire::Event;
use crate::control::controller::Controller;
use crate::control::events::Events;

/// Frames between the ring and a slow client.
const AHEAD: usize = 16;
/// Below the idle limits of the usual middle boxes (30 to 60 s).
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The stream of events after `after`; `None` follows new ones only. `place` is given back at its end.
pub(super) fn stream(
    controller: Controller,
    after: Option<u64>,
    ending: watch::Receiver<bool>,
    place: OwnedSemaphorePermit,
) -> Response {
    let (frames, body) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        follow(controller.events(), after, ending, &frames).await;
        drop(place);
    });
    let body = ReceiverStream::new(body).map(Ok::<Bytes, std::convert::Infallible>);
    ([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(body)).into_response()
}

/// Sends frames until the client goes away or the process ends.
async fn follow(events: &Events, after: Option<u64>, mut ending: watch::Receiver<bool>, frames: &mpsc::Sender<Bytes>) {
    let mut newest = events.follow();
    let mut seen = begin(after, *newest.borrow_and_update());
    // Sent at once, so that the client sees the head of the answer before the first event.
    let mut next = vec![Bytes::from_static(b"retry: 2000\n\n")];
    loop {
        for frame in next.drain(..) {
            if frames.send(frame).await.is_err() {
                return;
            }
        }
        for event in events.after(seen) {
            seen = event.id;
            next.push(frame(&Event::from(event)));
        }
        if !next.is_empty() {
            continue;
        }
        tokio::select! {
            biased;
            _ = ending.wait_for(|ending| *ending) => return,
            () = frames.closed() => return,
            _ = newest.changed() => {}
            () = tokio::time::sleep(HEARTBEAT) => next.push(Bytes::from_static(b": quiet\n\n")),
        }
    }
}

/// The id to begin after. An id ahead of the newest is from before a restart: all that is kept is new to it.
fn begin(after: Option<u64>, newest: u64) -> u64 {
    match after {
        None => newest,
        Some(after) if after > newest => 0,
        Some(after) => after,
    }
}

/// One frame; JSON has no bare line ends, so one `data` line holds it.
fn frame(event: &Event) -> Bytes {
    let data = serde_json::to_string(event).unwrap_or_default();
    format!("id: {}\nevent: {}\ndata: {data}\n\n", event.id, event.kind).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_frame() {
        let event = Event {
            id: 7,
            at: "2026-01-02T03:04:05.006Z".to_owned(),
            service: Some("shop".to_owned()),
            rollout: None,
            kind: "held".to_owned(),
            sentence: "one\ntwo".to_owned(),
            took_us: None,
        };
        assert_eq!(
            frame(&event),
            "id: 7\nevent: held\ndata: {\"id\":7,\"at\":\"2026-01-02T03:04:05.006Z\",\"service\":\"shop\",\
             \"rollout\":null,\"kind\":\"held\",\"sentence\":\"one\\ntwo\"}\n\n"
        );
    }

    #[test]
    fn a_stream_begins_where_it_left_off() {
        for (after, newest, expected) in
            [(None, 9, 9), (Some(0), 9, 0), (Some(4), 9, 4), (Some(9), 9, 9), (Some(500), 9, 0)]
        {
            assert_eq!(begin(after, newest), expected, "{after:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_follower_resumes_gets_news_and_heartbeats_and_ends_with_the_process() {
        let events = Events::default();
        let tell = |sentence: &str| events.tell("test", None, None, sentence.to_owned());
        ["one", "two"].into_iter().for_each(tell);
        let (end, ending) = watch::channel(false);
        let (frames, mut body) = mpsc::channel::<Bytes>(AHEAD);
        let reader = async {
            let mut seen = Vec::new();
            while let Some(frame) = body.recv().await {
                let text = String::from_utf8(frame.to_vec()).unwrap();
                seen.push(text.lines().next().unwrap_or_default().to_owned());
                match seen.len() {
                    2 => tell("three"),
                    4 => drop(end.send_replace(true)),
                    _ => {}
                }
            }
            seen
        };
        let followed = async {
            follow(&events, Some(1), ending, &frames).await;
            drop(frames);
        };
        let ((), seen) = tokio::join!(followed, reader);
        assert_eq!(seen, ["retry: 2000", "id: 2", "id: 3", ": quiet"]);
    }

    #[tokio::test]
    async fn a_follower_ends_when_its_client_goes_away() {
        let (_end, ending) = watch::channel(false);
        let (frames, body) = mpsc::channel(AHEAD);
        drop(body);
        follow(&Events::default(), None, ending, &frames).await;
        assert!(frames.is_closed());
    }
}
