//! The access log: JSON lines, one per finished request, written by a thread of its own.
//!
//! Workers hand over batches through a bounded channel and never wait; when the disk is slower than the traffic,
//! lines are dropped and counted (`teal_access_log_dropped_total`), requests are not.
//!
//! Invariant: a line is written whole, with its newline, or not at all.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use serde::Serialize;
use serde::ser::Serializer;

use crate::clock;
use crate::config::settings::AccessLog;

/// Batches that may wait: with 256 lines each, some ten megabytes at the very most.
const WAITING: usize = 64;

/// One finished request.
#[derive(Debug, Default, Serialize)]
pub struct Entry {
    /// When it came, in wall milliseconds; written as RFC 3339.
    #[serde(rename = "time", serialize_with = "as_rfc3339")]
    pub at: u64,
    /// The client's address.
    pub client: Option<IpAddr>,
    /// The method.
    pub method: String,
    /// As the client asked.
    pub host: String,
    /// Without query: queries carry secrets.
    pub path: String,
    /// The status sent.
    pub status: u16,
    /// The service, if one claimed the request.
    pub service: Option<String>,
    /// The pool it was last sent to.
    pub pool: Option<String>,
    /// Why that pool: `split`, `override:NAME`, `rescue`, or `diverted` from another whose breaker is open.
    pub reason: Option<String>,
    /// The pool that failed it, if the active one answered instead.
    pub rescued_from: Option<String>,
    /// How many attempts it took.
    pub attempts: u32,
    /// The endpoint it was last sent to.
    pub endpoint: Option<String>,
    /// From the head's arrival to the last byte handed over, in microseconds.
    pub duration_us: u64,
    /// Body bytes sent.
    pub bytes: u64,
    /// The request id.
    pub id: String,
}

fn as_rfc3339<S: Serializer>(at: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&clock::rfc3339(*at))
}

/// The running log. Ends, with everything written, once all senders are gone.
#[derive(Debug)]
pub struct Log {
    /// Where batches go.
    pub batches: SyncSender<Vec<Entry>>,
    thread: JoinHandle<()>,
}

impl Log {
    /// Starts the log's thread; `None` when the log is off.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn start(target: &AccessLog) -> io::Result<Option<Log>> {
        let sink: Box<dyn Write + Send> = match target {
            AccessLog::Off => return Ok(None),
            AccessLog::Stdout => Box::new(io::stdout()),
            AccessLog::File(path) => Box::new(OpenOptions::new().append(true).create(true).open(path)?),
        };
        let (batches, waiting) = sync_channel(WAITING);
        let thread = std::thread::Builder::new().name("access-log".into()).spawn(move || write_all(&waiting, sink))?;
        Ok(Some(Log { batches, thread }))
    }

    /// Waits until everything handed over is written. The workers' senders must be gone.
    pub fn finish(self) {
        drop(self.batches);
        let _ = self.thread.join();
    }
}

fn write_all(waiting: &Receiver<Vec<Entry>>, sink: Box<dyn Write + Send>) {
    let mut sink = BufWriter::new(sink);
    let mut failing = false;
    while let Ok(batch) = waiting.recv() {
        let written = batch.iter().try_for_each(|entry| write_line(&mut sink, entry)).and_then(|()| sink.flush());
        match &written {
            Err(error) if !failing => tracing::error!(%error, "the access log cannot be written"),
            _ => {}
        }
        failing = written.is_err();
    }
}

fn write_line(sink: &mut impl Write, entry: &Entry) -> io::Result<()> {
    let mut line = serde_json::to_vec(entry).map_err(io::Error::other)?;
    line.push(b'\n');
    sink.write_all(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_json_with_the_time_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let log = Log::start(&AccessLog::File(path.clone())).unwrap().unwrap();
        let entry = Entry { at: 1_000, path: "/a\"b".into(), status: 200, ..Entry::default() };
        log.batches.send(vec![entry]).unwrap();
        log.finish();
        let line: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(
            (&line["time"], &line["path"], &line["status"]),
            (&"1970-01-01T00:00:01.000Z".into(), &"/a\"b".into(), &200.into())
        );
    }

    #[test]
    fn an_unwritable_file_is_refused_at_the_start() {
        assert!(Log::start(&AccessLog::File("/nonexistent/folder/log".into())).is_err());
        assert!(Log::start(&AccessLog::Off).unwrap().is_none());
    }
}
