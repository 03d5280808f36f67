//! The store on its own thread, so that nobody else ever waits for a disk unless they choose to.
//!
//! Requests are served in the order they were sent. The queue is bounded: a writer that awaits is slowed
//! down, one that does not is refused.
//!
//! Invariant: a [`Journal::write`] that returned `Ok` is durable.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::{mpsc, oneshot};

use super::{Batch, Store, StoreError};
use crate::control::state::Finished;

/// Requests that may wait: far more than a person causes, little enough to be memory-safe.
const QUEUE: usize = 256;

/// A handle to the store's thread; clones share it.
#[derive(Clone)]
pub struct Journal {
    requests: mpsc::Sender<Request>,
    thread: Arc<Mutex<Option<thread::JoinHandle<()>>>>,
}

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

enum Request {
    Write(Batch, Answer<()>),
    WriteLater(Batch),
    History(String, usize, Answer<Vec<Finished>>),
    Rollout(String, Answer<Option<Finished>>),
    Release(oneshot::Sender<()>),
    Reclaim(Answer<()>),
    Close(oneshot::Sender<()>),
}

impl Journal {
    /// Gives the store a thread of its own.
    ///
    /// # Errors
    /// If the system cannot start a thread.
    pub fn spawn(store: Store) -> std::io::Result<Journal> {
        let (requests, queue) = mpsc::channel(QUEUE);
        let thread = thread::Builder::new().name("teal-store".to_owned()).spawn(move || serve(store, queue))?;
        Ok(Journal { requests, thread: Arc::new(Mutex::new(Some(thread))) })
    }

    /// Writes `batch`; returns once it is durable.
    ///
    /// # Errors
    /// As [`Store::commit`], or [`StoreError::Closed`].
    pub async fn write(&self, batch: Batch) -> Result<(), StoreError> {
        self.ask(|answer| Request::Write(batch, answer)).await
    }

    /// Writes `batch` at some later time, without an answer. False, and nothing is written, if the
    /// queue is full: for evidence, of which a newer one follows.
    pub fn write_later(&self, batch: Batch) -> bool {
        self.requests.try_send(Request::WriteLater(batch)).is_ok()
    }

    /// See [`Store::history`].
    ///
    /// # Errors
    /// As [`Store::history`], or [`StoreError::Closed`].
    pub async fn history(&self, service: &str, limit: usize) -> Result<Vec<Finished>, StoreError> {
        self.ask(|answer| Request::History(service.to_owned(), limit, answer)).await
    }

    /// See [`Store::rollout`].
    ///
    /// # Errors
    /// As [`Store::rollout`], or [`StoreError::Closed`].
    pub async fn rollout(&self, id: &str) -> Result<Option<Finished>, StoreError> {
        self.ask(|answer| Request::Rollout(id.to_owned(), answer)).await
    }

    /// Lets go of the file once everything that was queued is written; see [`Store::release`].
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub async fn release(&self) -> Result<(), StoreError> {
        let (done, released) = oneshot::channel();
        self.requests.send(Request::Release(done)).await.map_err(|_| StoreError::Closed)?;
        released.await.map_err(|_| StoreError::Closed)
    }

    /// See [`Store::reclaim`].
    ///
    /// # Errors
    /// As [`Store::reclaim`], or [`StoreError::Closed`].
    pub async fn reclaim(&self) -> Result<(), StoreError> {
        self.ask(Request::Reclaim).await
    }

    /// Serves what is queued, releases the file and ends the thread; every later request is
    /// [`StoreError::Closed`].
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.requests.send(Request::Close(done)).await.is_ok() {
            // An error means that somebody else closed it first.
            let _ = closed.await;
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // Past the answer nothing is left to do but to return, so this does not stall the caller.
            let _ = thread.join();
        }
    }

    async fn ask<T>(&self, request: impl FnOnce(Answer<T>) -> Request) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(request(answer)).await.map_err(|_| StoreError::Closed)?;
        answered.await.unwrap_or(Err(StoreError::Closed))
    }
}

fn serve(mut store: Store, mut queue: mpsc::Receiver<Request>) {
    while let Some(request) = queue.blocking_recv() {
        // A caller that went away does not need its answer.
        match request {
            Request::Write(batch, answer) => drop(answer.send(store.commit(&batch))),
            Request::WriteLater(batch) => {
                match store.commit(&batch) {
                    // The successor goes on from what was written last.
                    Ok(()) | Err(StoreError::Released) => {}
                    Err(error) => tracing::warn!(%error, "evidence was not written"),
                }
            }
            Request::History(service, limit, answer) => drop(answer.send(store.history(&service, limit))),
            Request::Rollout(id, answer) => drop(answer.send(store.rollout(&id))),
            Request::Release(done) => {
                store.release();
                let _ = done.send(());
            }
            Request::Reclaim(answer) => drop(answer.send(store.reclaim())),
            Request::Close(done) => {
                drop(store);
                queue.close();
                let _ = done.send(());
                return;
            }
        }
    }
}
