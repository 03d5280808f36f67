//! The course of a request: what became of its attempts so far, and whether another one follows.
//!
//! [`crate::proxy::pipeline`] goes round and asks here after each attempt; [`retry::follow`] decides. An answer that
//! is not good enough is kept until another attempt has brought one, so that a retry that fails makes nothing worse.
//!
//! Invariant: an answer that was kept goes down, or is let go once; and once the baseline was asked to rescue, no other
//! pool is.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::sleep;

use crate::bridge::purse::Permit;
use crate::bridge::table::{Assignment, Reason, Service};
use crate::clock;
use crate::config::settings::Protocol;
use crate::domain::outcome::Failure;
use crate::domain::rescue::Refused;
use crate::domain::retry::{self, Case, Next, Prospect, Role, Safety, Statuses, Trouble};
use crate::proxy::http1::framing::Framing;
use crate::proxy::pipeline::{Answer, Downstream, Request};
use crate::proxy::recorder::{Patience, Place};
use crate::proxy::replay::Replay;
use crate::proxy::worker::Worker;

/// Says of an answer that the request may be sent again.
const RETRIABLE: &str = "x-teal-retriable";

/// From here on an answer may be one that is not good enough.
const FAILING: u16 = Statuses::RANGE.0;

/// Endpoints of a request that are remembered: the first, five retries, a rescue, and one for good measure.
const TRIED: usize = 8;

/// What became of a request so far.
pub struct Course {
    /// Fresh entropy of the request, the same in every round.
    pub draw: u64,
    /// What went up of its body.
    pub replay: Replay,
    safety: Safety,
    /// The body, if there is one, is known to be short enough to be kept.
    framing: Framing,
    fits: bool,
    is_counted: bool,
    /// Where it is now is on trial, and the split sent it there.
    is_canary: bool,
    tries: u32,
    tried: Tried,
    /// How it last failed.
    failure: Failure,
    fallback: Option<Answer>,
    rescued_from: Option<Place>,
    permit: Option<Permit>,
    pause: Duration,
}

/// The endpoints that failed it.
#[derive(Default)]
struct Tried {
    ids: [u64; TRIED],
    count: usize,
}

impl Course {
    /// Of a request that was not tried yet; `draw` is fresh entropy.
    pub fn of(request: &Request<'_>, draw: u64) -> Course {
        Course {
            draw,
            replay: Replay::default(),
            safety: std::str::from_utf8(request.head.method()).map_or(Safety::Neither, Safety::of),
            framing: request.framing,
            fits: true,
            is_counted: false,
            is_canary: false,
            tries: 0,
            tried: Tried::default(),
            failure: Failure::NoEndpoint,
            fallback: None,
            rescued_from: None,
            permit: None,
            pause: Duration::ZERO,
        }
    }

    /// Where the next attempt goes: where the service says, or to the active pool if it is a rescue. `None` if there
    /// is nothing that may be asked.
    pub fn assign(&self, service: &Service, by_rules: impl FnOnce() -> Option<Assignment>) -> Option<Assignment> {
        let Some(failed) = &self.rescued_from else { return by_rules() };
        let rescue = Assignment { pool: service.active, reason: Reason::Rescue };
        let is_same = service.settings.name == failed.service().settings.name;
        let is_other_pool = service.pools[service.active].name != failed.pool().name;
        (is_same && is_other_pool && service.still_allows(rescue)).then_some(rescue)
    }

    /// An attempt is about to be made at `place`: says how long it is waited for, and whether the judge counts it.
    pub fn enters(&mut self, worker: &Worker, place: &mut Place, assignment: Assignment) {
        let (service, route) = (place.service(), place.route());
        let (retry, rescue) = (&service.settings.retry, service.settings.rescue.as_ref());
        let by_split = assignment.reason == Reason::Split;
        self.is_canary = by_split && assignment.pool != service.active;
        if !self.is_counted {
            self.is_counted = true;
            service.purse.asked(worker.index);
            let repeats = retry.may_repeat(self.safety, route.repeats)
                || rescue.is_some_and(|rescue| rescue.may_repeat(self.safety, route.repeats));
            let may_follow = retry.attempts > 0 || (rescue.is_some() && service.pools.len() > 1);
            // Even what may not happen twice is sent again if an HTTP/2 endpoint says that it never began.
            let is_wanted = may_follow && (repeats || place.pool().protocol != Protocol::Http1);
            let most = service.settings.replay;
            (self.replay, self.fits) = match self.framing {
                Framing::None | Framing::Length(0) | Framing::UntilClose => (Replay::default(), true),
                Framing::Length(length) if is_wanted && length <= most as u64 => (Replay::of(most), true),
                Framing::Chunked if is_wanted => (Replay::of(most), false),
                Framing::Length(_) | Framing::Chunked => (Replay::default(), false),
            };
        }
        let (tries, safety, fits) = (self.tries, self.safety, self.fits);
        let prospect = Prospect { tries, safety, route_repeats: route.repeats, replayable: fits };
        let mut patience = Patience { cut: retry.patience(&prospect), bad: None };
        if let Some(rescue) = rescue.filter(|rescue| {
            by_split && fits && tries == 0 && rescue.on.timeout && rescue.may_repeat(safety, route.repeats)
        }) {
            patience.bad = Some(rescue.after);
            let has_baseline = !service.share(service.active).is_none();
            if self.is_canary && has_baseline && service.purse.has_rescue(&rescue.budget, clock::now().0) {
                patience.cut = Some(patience.cut.map_or(rescue.after, |cut| cut.min(rescue.after)));
            }
        }
        (place.judged, place.patience) = (by_split && tries == 0, patience);
    }
    /// It has not failed yet.
    pub fn is_first(&self) -> bool {
        self.tries == 0
    }

    /// The endpoints that failed it, to be avoided.
    pub fn tried(&self) -> &[u64] {
        &self.tried.ids[..self.tried.count]
    }

    /// The pool that failed it, if it is being rescued.
    pub fn rescued_from(&self) -> Option<&Place> {
        self.rescued_from.as_ref()
    }

    /// It was sent to this endpoint; a further attempt goes to another, if there is one.
    pub fn was_at(&mut self, endpoint: u64) {
        if self.tried.count < TRIED {
            self.tried.ids[self.tried.count] = endpoint;
            self.tried.count += 1;
        }
    }

    /// An answer came: gives it back if it is the one that goes down, or keeps it while another attempt follows.
    pub fn takes(&mut self, worker: &Worker, place: &Place, mut answer: Answer) -> Option<Answer> {
        let head = answer.exchange.head();
        let status = head.status;
        let follows = status >= FAILING && {
            let settings = &place.service().settings;
            let asks = settings.retry.on.retriable_header
                || settings.rescue.as_ref().is_some_and(|rescue| rescue.on.retriable_header);
            let retriable = asks && head.fields.named(RETRIABLE).next() == Some(b"true");
            let replayable = answer.exchange.is_replayable();
            self.goes_on(worker, place, Trouble::Answered { status, retriable }, replayable)
        };
        if let Some(worse) = self.fallback.take() {
            worse.exchange.let_go();
        }
        if follows {
            self.replay = answer.exchange.rests();
            self.fallback = Some(answer);
            return None;
        }
        answer.exchange.is_final();
        if let Some(failed) = &self.rescued_from {
            match status {
                500.. => failed.unrescued(worker.index, Refused::Baseline),
                _ => failed.rescued(worker.index),
            }
            let says_so = failed.service().settings.rescue.as_ref().is_some_and(|rescue| rescue.header);
            answer.additions.rescued_from = says_so.then(|| failed.pool().name.clone());
        }
        Some(answer)
    }

    /// An attempt brought no answer: true if another one follows.
    pub fn fails(&mut self, worker: &Worker, place: &Place, trouble: Trouble) -> bool {
        self.failure = trouble.failure().unwrap_or(self.failure);
        let replayable = self.replay.is_whole();
        self.goes_on(worker, place, trouble, replayable)
    }

    /// An injected fault answered with this status in place of the pool: true if another attempt follows.
    pub fn fails_by(&mut self, worker: &Worker, place: &Place, status: u16) -> bool {
        let trouble = Trouble::Answered { status, retriable: false };
        status >= FAILING && self.fails(worker, place, trouble)
    }

    /// How the last attempt without an answer failed.
    pub fn failure(&self) -> Failure {
        self.failure
    }

    /// Nothing more is tried: the answer that was kept, if there is one.
    pub fn fall_back(&mut self, worker: &Worker) -> Option<Answer> {
        if let Some(failed) = &self.rescued_from {
            failed.unrescued(worker.index, Refused::Baseline);
        }
        let mut answer = self.fallback.take()?;
        answer.exchange.resumes();
        Some(answer)
    }

    fn goes_on(&mut self, worker: &Worker, place: &Place, trouble: Trouble, replayable: bool) -> bool {
        let (service, route) = (place.service(), place.route());
        let (policy, rescue) = (&service.settings.retry, service.settings.rescue.as_ref());
        let role = match self.is_canary {
            true => Role::Canary { baseline_has_share: !service.share(service.active).is_none() },
            false => Role::Baseline,
        };
        let (tries, safety, route_repeats) = (self.tries, self.safety, route.repeats);
        let case = Case { trouble, tries, safety, route_repeats, replayable, role };
        let now = clock::now().0;
        // The attempt that failed is over, whatever follows.
        self.permit = None;
        let mut permit = None;
        let may_retry = || {
            permit = service.purse.retry(policy, now);
            permit.is_some()
        };
        let may_rescue = || rescue.is_some_and(|rescue| service.purse.rescue(&rescue.budget, now));
        match retry::follow(&case, policy, rescue, worker.random(), may_retry, may_rescue) {
            Next::Retry { after } => {
                self.pause = after;
                place.retried(worker.index);
            }
            Next::Rescue => {
                self.pause = Duration::ZERO;
                // Its place among the requests of that pool is free for others.
                self.rescued_from = Some(Place { seat: None, ..place.clone() });
            }
            Next::GiveUp(refused) => {
                refused.into_iter().for_each(|refused| place.unrescued(worker.index, refused));
                return false;
            }
        }
        tracing::debug!(pool = place.pool().name, ?trouble, rescue = self.rescued_from.is_some(), "trying again");
        self.permit = permit;
        self.tries += 1;
        true
    }

    /// Waits until the next attempt is due; false if the client went away meanwhile.
    pub async fn waits<D: Downstream>(&self, down: &mut D) -> bool {
        if self.pause.is_zero() {
            return true;
        }
        let waiter = down.waiter();
        let mut due = pin!(sleep(self.pause));
        poll_fn(|cx| {
            waiter.register(cx.waker());
            match down.poll_gone(cx) {
                Poll::Ready(()) => Poll::Ready(false),
                Poll::Pending => due.as_mut().poll(cx).map(|()| true),
            }
        })
        .await
    }
}
