//! `teal streams SVC`: WebSockets, events, gRPC and long answers, the oldest first.

use std::time::Duration;

use super::client::{Client, path};
use super::failure::{Exit, Failure};
use super::output::Output;
use super::table::{Side, table};
use crate::control::admin::wire::streams::{Stream, Streams};

const HEADING: [&str; 7] = ["KIND", "POOL", "ENDPOINT", "CLIENT", "AGE", "UP", "DOWN"];
const COLUMNS: [Side; 7] = [Side::Left, Side::Left, Side::Left, Side::Left, Side::Right, Side::Right, Side::Right];

/// What `streams` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Shows what has been streaming for ten seconds or more.\n\nExample:\n  teal streams shop")]
pub(super) struct Arguments {
    /// The service
    #[arg(value_name = "SVC")]
    service: String,
}

/// Shows the long streams of a service.
pub(super) async fn run(arguments: Arguments, client: &Client, output: Output<'_>) -> Result<Exit, Failure> {
    let streams: Streams = client.get(&path(&["services", &arguments.service, "streams"])).await?;
    output.show(&streams, text)?;
    Ok(Exit::Done)
}

fn text(streams: &Streams) -> String {
    if streams.total == 0 {
        return format!("{} has no long streams", streams.service);
    }
    let heading = HEADING.map(str::to_owned).to_vec();
    let rows: Vec<_> = std::iter::once(heading).chain(streams.streams.iter().map(row)).collect();
    let mut text = table(0, &COLUMNS, &rows);
    let shown = streams.streams.len() as u64;
    if streams.total > shown {
        text.push_str(&format!("the oldest {shown} of {}\n", streams.total));
    }
    text
}

fn row(stream: &Stream) -> Vec<String> {
    let age = Duration::from_secs(stream.age_seconds.max(0.0) as u64);
    vec![
        stream.kind.clone(),
        stream.pool.clone(),
        stream.endpoint.clone(),
        stream.client.clone(),
        humantime::format_duration(age).to_string(),
        bytesize::ByteSize(stream.bytes_up).to_string(),
        bytesize::ByteSize(stream.bytes_down).to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stream_has_its_line_and_what_is_not_shown_is_counted() {
        let stream = Stream {
            kind: "events".to_owned(),
            pool: "blue".to_owned(),
            endpoint: "http://10.0.0.1:80".to_owned(),
            client: "192.0.2.1".to_owned(),
            age_seconds: 75.4,
            bytes_up: 0,
            bytes_down: 2_048,
        };
        let mut streams = Streams { service: "shop".to_owned(), total: 3, streams: vec![stream] };
        let expected = "\
KIND    POOL  ENDPOINT            CLIENT        AGE   UP     DOWN
events  blue  http://10.0.0.1:80  192.0.2.1  1m 15s  0 B  2.0 KiB
the oldest 1 of 3\n";
        assert_eq!(text(&streams), expected);
        streams.total = 0;
        assert_eq!(text(&streams), "shop has no long streams");
    }
}
