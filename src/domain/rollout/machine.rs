//! The rollout's state machine: `step(event, now) -> actions`, and nothing else.
//!
//! It decides; a small driver performs. Forward movement is hard to earn: a step moves on only by the
//! judge's approval given inside the step, by a pause that ends, or by a person. Backward movement is
//! free: a rollback or abort is taken in every phase that is not an end, and its first action is to
//! publish, before any disk is asked.
//!
//! Invariants: the canary's share rises only through [`Action::Move`]; after [`Action::Revert`] nothing
//! but [`Action::Revert`] touches traffic; an ended rollout never changes; every halt carries a sentence.

use std::fmt;
use std::time::Duration;

pub use crate::domain::rollout::event::{Action, Event, Kind, Millis, Notice, Refused, UnixMillis};
use crate::domain::rollout::plan::{OnInconclusive, Pause, Plan, Step};
use crate::domain::split::Share;

/// How long a rollback that could not be completed waits before its actions are repeated.
const REVERT_AGAIN: Duration = Duration::from_secs(1);

/// What a rollout is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The rollout's id: unique for ever, across services.
    pub id: String,
    /// The service it belongs to.
    pub service: String,
    /// The pool that serves now and gets everything back on a rollback.
    pub baseline: String,
    /// The pool that is to serve.
    pub canary: String,
    /// The steps between.
    pub plan: Plan,
    /// Who asked for it.
    pub started_by: String,
    /// When it was asked for.
    pub started_at: UnixMillis,
}

/// One rollout.
///
/// ```text
///          Start                Applied                      dwell passed and approved,
///   Ready ──────▶ Applying ───────────────▶ Analyzing ─────▶ pause over, resume: the next step,
///                  ▲    │    (next step)  ▶ Waiting   ─────▶ an Applying again, and past the last
///                  │    │                       │            step Promoting
///          Resume  │    │ Pause, HoldAdvised,   │                 │ Applied{promote}
///   (step again)   │    ▼ ApplyFailed           ▼                 ▼
///                 Held ◀────────────────── (deadline: inconclusive)    Promoted
///                  │ inconclusive only: a later approval goes on
///                  │ by a breaker only: BreakerOpened holds what is no hold yet, BreakerClosed begins the step again
///                  │
///   any phase that is no end:  Worse, Rollback, inconclusive by policy ─▶ RollingBack ─Reverted─▶ RolledBack
///                              Abort                                   ─▶ RollingBack ─Reverted─▶ Aborted
///                              Promote (not while RollingBack)         ─▶ Promoting
///   Restarted: Analyzing and Waiting begin again; Held stays; RollingBack reverts again; a forward move
///   under way falls back to the gate before it, or is Held where there is none.
/// ```
///
/// Fields are public to be shown and stored; only [`Rollout::step`] changes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// What was ordered.
    pub order: Order,
    /// Where it is.
    pub phase: Phase,
    /// Index into the plan's steps; the plan's length once all steps are done.
    pub step: usize,
    /// The canary's share that every worker last acknowledged.
    pub applied: Share,
    /// When the current step's clock began.
    pub entered: Millis,
    /// Whether the judge's latest word since `entered` was an approval.
    pub approved: bool,
    /// The judge's latest sentence in this step; empty before the first.
    pub verdict: String,
    /// Why it is where it is: the sentence of the last hold, end or change.
    pub reason: String,
}

/// Where a rollout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Made, not started.
    Ready,
    /// A forward move to `share` is under way: journal, publish, acknowledge.
    Applying {
        /// The share being applied.
        share: Share,
    },
    /// Waiting for the judge.
    Analyzing,
    /// Waiting for a time or a person.
    Waiting,
    /// Halted where it is, at the last acknowledged share.
    Held(Cause),
    /// The last move: the canary becomes the active pool.
    Promoting,
    /// All traffic goes to the baseline; ends as `End`.
    RollingBack(End),
    /// Over.
    Ended(End),
}

/// Why a rollout is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The judge advised it, or a breaker that opened too often.
    Advised,
    /// The canary's breaker is not closed; it goes on by itself once it is.
    Breaker,
    /// An analysis met its deadline without a verdict; a later approval still goes on.
    Inconclusive,
    /// Somebody paused it.
    Paused,
    /// A move could not be completed.
    Failed,
    /// The process restarted inside a move that nothing before it gates.
    Restarted,
}

/// How a rollout ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// The canary is the active pool.
    Promoted,
    /// The baseline has everything, because of the judge or somebody's `rollback`.
    RolledBack,
    /// The baseline has everything, because somebody aborted.
    Aborted,
}

impl Rollout {
    /// A rollout that waits for [`Event::Start`].
    pub fn new(order: Order) -> Rollout {
        Rollout {
            order,
            phase: Phase::Ready,
            step: 0,
            applied: Share::NONE,
            entered: Millis(0),
            approved: false,
            verdict: String::new(),
            reason: String::new(),
        }
    }

    /// How it ended, or `None` while it runs.
    pub const fn end(&self) -> Option<End> {
        match self.phase {
            Phase::Ended(end) => Some(end),
            _ => None,
        }
    }

    /// True while [`Event::Pause`] is not refused and the judge's findings matter.
    pub const fn is_running(&self) -> bool {
        !matches!(self.phase, Phase::Ended(_) | Phase::RollingBack(_))
    }

    /// Takes one event at time `now` and says what follows from it.
    ///
    /// # Errors
    /// Only commands of users are refused; the state is then unchanged.
    pub fn step(&mut self, event: Event, now: Millis) -> Result<Vec<Action>, Refused> {
        if let Some(end) = self.end() {
            return match event.command() {
                Some(command) => Err(refused(format!("cannot {command}: the rollout is over, it was {end}"))),
                None => Ok(Vec::new()),
            };
        }
        Ok(match event {
            Event::Start => self.on_start(now),
            Event::Applied { share, promote } => self.on_applied(share, promote, now),
            Event::Reverted => self.on_reverted(),
            Event::ApplyFailed { reason } => self.on_apply_failed(reason, now),
            Event::Tick => self.on_tick(now),
            Event::Judged { approved, sentence } => self.on_judged(approved, sentence, now),
            Event::Worse { sentence } => self.on_worse(sentence, now),
            Event::HoldAdvised { sentence } => self.on_hold_advised(sentence),
            Event::BreakerOpened { sentence } => self.on_breaker_opened(&sentence),
            Event::BreakerClosed => self.on_breaker_closed(now),
            Event::Pause { by } => self.on_pause(&by)?,
            Event::Resume { by } => self.on_resume(&by, now)?,
            Event::Promote { by } => self.on_promote(&by)?,
            Event::Abort { by, reason } => self.revert(End::Aborted, told("aborted", &by, &reason), now),
            Event::Rollback { by, reason } => self.revert(End::RolledBack, told("rolled back", &by, &reason), now),
            Event::Restarted => self.on_restarted(now),
        })
    }

    fn on_start(&mut self, now: Millis) -> Vec<Action> {
        if self.phase != Phase::Ready {
            return Vec::new();
        }
        let Order { service, baseline, canary, started_by, .. } = &self.order;
        let sentence = format!("rollout of {service} from {baseline} to {canary} started by {started_by}");
        let mut actions = vec![announce(Kind::Started, sentence)];
        actions.extend(self.enter(now));
        actions
    }

    fn on_applied(&mut self, share: Share, promote: bool, now: Millis) -> Vec<Action> {
        match self.phase {
            Phase::Applying { share: awaited } if awaited == share && !promote => {
                self.applied = share;
                self.step += 1;
                let next = self.enter(now);
                std::iter::once(Action::Settle).chain(next).collect()
            }
            Phase::Promoting if promote => {
                self.applied = share;
                self.step = self.order.plan.steps.len();
                self.finish(End::Promoted)
            }
            _ => Vec::new(),
        }
    }

    fn on_reverted(&mut self) -> Vec<Action> {
        match self.phase {
            Phase::RollingBack(end) => self.finish(end),
            _ => Vec::new(),
        }
    }

    fn on_apply_failed(&mut self, reason: String, now: Millis) -> Vec<Action> {
        match self.phase {
            // Already as safe as it gets: the rollback is repeated by the clock, a hold stays one.
            Phase::RollingBack(_) => {
                self.entered = now;
                vec![announce(Kind::Delayed, format!("the rollback is not complete: {reason}"))]
            }
            Phase::Held(_) => Vec::new(),
            _ => self.hold(Cause::Failed, format!("{}: {reason}", self.place())),
        }
    }

    fn on_tick(&mut self, now: Millis) -> Vec<Action> {
        match (self.phase, self.current()) {
            (Phase::Analyzing, Some(Step::Analyze { dwell, deadline })) => {
                self.on_analysis_tick(*dwell, *deadline, now)
            }
            (Phase::Held(Cause::Inconclusive), Some(Step::Analyze { dwell, .. })) => {
                self.on_analysis_tick(*dwell, None, now)
            }
            (Phase::Waiting, Some(Step::Pause(Pause::For(time)))) if now.since(self.entered) >= *time => {
                self.advance(now)
            }
            (Phase::RollingBack(_), _) if now.since(self.entered) >= REVERT_AGAIN => {
                self.entered = now;
                vec![Action::Revert, Action::Settle]
            }
            _ => Vec::new(),
        }
    }

    fn on_analysis_tick(&mut self, dwell: Duration, deadline: Option<Duration>, now: Millis) -> Vec<Action> {
        let spent = now.since(self.entered);
        if self.approved && spent >= dwell {
            return self.advance(now);
        }
        if self.approved || deadline.is_none_or(|deadline| spent < deadline) {
            return Vec::new();
        }
        let sentence = self.inconclusive_sentence(spent);
        match self.order.plan.on_inconclusive {
            OnInconclusive::Hold => self.hold(Cause::Inconclusive, sentence),
            OnInconclusive::Rollback => self.revert(End::RolledBack, sentence, now),
        }
    }

    fn on_judged(&mut self, approved: bool, sentence: String, now: Millis) -> Vec<Action> {
        let Some(Step::Analyze { dwell, .. }) = self.current() else { return Vec::new() };
        let dwelt = now.since(self.entered) >= *dwell;
        if !matches!(self.phase, Phase::Analyzing | Phase::Held(Cause::Inconclusive)) {
            return Vec::new();
        }
        self.approved = approved;
        self.verdict = sentence;
        if approved && dwelt { self.advance(now) } else { Vec::new() }
    }

    fn on_worse(&mut self, sentence: String, now: Millis) -> Vec<Action> {
        match self.phase {
            Phase::RollingBack(_) => Vec::new(),
            _ => self.revert(End::RolledBack, format!("{}: {sentence}", self.place()), now),
        }
    }

    fn on_hold_advised(&mut self, sentence: String) -> Vec<Action> {
        match self.phase {
            Phase::RollingBack(_) | Phase::Held(Cause::Advised) => Vec::new(),
            _ => self.hold(Cause::Advised, format!("{}: {sentence}", self.place())),
        }
    }

    fn on_breaker_opened(&mut self, sentence: &str) -> Vec<Action> {
        match self.phase {
            // Who must be resumed by a person already is not to go on by itself.
            Phase::Held(cause) if cause != Cause::Inconclusive => Vec::new(),
            Phase::Ready | Phase::RollingBack(_) => Vec::new(),
            _ => self.hold(Cause::Breaker, format!("{}: held by {sentence}", self.place())),
        }
    }

    /// The step begins again: time that was spent without the canary says nothing about it.
    fn on_breaker_closed(&mut self, now: Millis) -> Vec<Action> {
        if self.phase != Phase::Held(Cause::Breaker) {
            return Vec::new();
        }
        let sentence = format!("{}: {}'s breaker is closed again", self.place(), self.order.canary);
        std::iter::once(announce(Kind::Resumed, sentence)).chain(self.enter(now)).collect()
    }

    fn on_pause(&mut self, by: &str) -> Result<Vec<Action>, Refused> {
        match self.phase {
            Phase::RollingBack(_) => Err(self.going_back("pause")),
            // These holds may still go on by themselves: a person's pause is stronger.
            Phase::Held(cause) if !matches!(cause, Cause::Inconclusive | Cause::Breaker) => {
                Err(refused(format!("cannot pause: the rollout is held already, {}", self.reason)))
            }
            _ => Ok(self.hold(Cause::Paused, format!("{}: paused by {by}", self.place()))),
        }
    }

    fn on_resume(&mut self, by: &str, now: Millis) -> Result<Vec<Action>, Refused> {
        let resumed = announce(Kind::Resumed, format!("{}: resumed by {by}", self.place()));
        let next = match self.phase {
            Phase::Held(Cause::Breaker) => {
                let sentence =
                    format!("cannot resume: it goes on by itself once the breaker is closed, {}", self.reason);
                return Err(refused(sentence));
            }
            Phase::Held(_) => self.enter(now),
            Phase::Waiting => self.advance(now),
            Phase::RollingBack(_) => return Err(self.going_back("resume")),
            _ => return Err(refused(format!("cannot resume: nothing is held, {}", self.place()))),
        };
        Ok(std::iter::once(resumed).chain(next).collect())
    }

    fn on_promote(&mut self, by: &str) -> Result<Vec<Action>, Refused> {
        match self.phase {
            Phase::RollingBack(_) => Err(self.going_back("promote")),
            Phase::Promoting => Err(refused("cannot promote: the rollout is being promoted already".to_owned())),
            _ => Ok(self.promote(format!("{}: promoted by {by}", self.place()))),
        }
    }

    fn on_restarted(&mut self, now: Millis) -> Vec<Action> {
        if let Phase::RollingBack(_) = self.phase {
            self.entered = now;
            return vec![Action::Revert, Action::Settle];
        }
        self.begin_clock(now);
        // Whatever was being applied ended with the old process: what holds is what was acknowledged.
        let restore = Action::Restore { share: self.applied };
        // Breakers are closed in a new process: this hold is over.
        if matches!(self.phase, Phase::Held(cause) if cause != Cause::Breaker) {
            let sentence = format!("still held after a restart, {}", self.reason);
            return vec![restore, announce(Kind::Restarted, sentence)];
        }
        // Never forward by itself: what was under way must pass a gate again, or be resumed by somebody.
        match self.last_gate().filter(|_| self.phase != Phase::Ready) {
            Some(step) => {
                self.step = step;
                let restarted = announce(Kind::Restarted, format!("{} begins again after a restart", self.place()));
                [restore, restarted].into_iter().chain(self.enter(now)).collect()
            }
            None => {
                let sentence = format!("{}: the process restarted inside a move; resume to go on", self.place());
                self.phase = Phase::Held(Cause::Restarted);
                self.reason = sentence;
                vec![restore, Action::Settle, announce(Kind::Held, self.reason.clone())]
            }
        }
    }

    /// The step that gates what comes next: the current one or the nearest before it that waits.
    fn last_gate(&self) -> Option<usize> {
        let steps = &self.order.plan.steps;
        let reached = steps.len().min(self.step.saturating_add(1));
        steps[..reached].iter().rposition(|step| !matches!(step, Step::Weight(_)))
    }

    /// Enters the current step; past the last one, promotes.
    fn enter(&mut self, now: Millis) -> Vec<Action> {
        self.begin_clock(now);
        let last = self.step + 1 >= self.order.plan.steps.len();
        let share = match self.current() {
            None => return self.promote("every step passed".to_owned()),
            Some(Step::Weight(share)) if *share == Share::ALL && last => {
                return self.promote("every step passed".to_owned());
            }
            Some(Step::Weight(share)) => Some(*share),
            Some(Step::Analyze { .. }) => {
                self.phase = Phase::Analyzing;
                None
            }
            Some(Step::Pause(_)) => {
                self.phase = Phase::Waiting;
                None
            }
        };
        let action = match share {
            Some(share) => {
                self.phase = Phase::Applying { share };
                Action::Move { share, promote: false }
            }
            None => Action::Settle,
        };
        self.reason = self.place();
        vec![announce(Kind::Stepped, self.reason.clone()), action]
    }

    fn advance(&mut self, now: Millis) -> Vec<Action> {
        self.step += 1;
        self.enter(now)
    }

    fn promote(&mut self, reason: String) -> Vec<Action> {
        self.phase = Phase::Promoting;
        self.reason = reason;
        vec![announce(Kind::Promoting, self.reason.clone()), Action::Move { share: Share::ALL, promote: true }]
    }

    /// Halts at the last acknowledged share; a move under way is taken back.
    fn hold(&mut self, cause: Cause, sentence: String) -> Vec<Action> {
        let moving = matches!(self.phase, Phase::Applying { .. } | Phase::Promoting);
        self.phase = Phase::Held(cause);
        self.reason = sentence;
        let restore = moving.then_some(Action::Restore { share: self.applied });
        let rest = [Action::Settle, announce(Kind::Held, self.reason.clone())];
        restore.into_iter().chain(rest).collect()
    }

    /// All traffic to the baseline. Repeating it while under way repeats the actions and keeps the end.
    fn revert(&mut self, end: End, sentence: String, now: Millis) -> Vec<Action> {
        let mut actions = vec![Action::Revert, Action::Settle];
        self.entered = now;
        self.applied = Share::NONE;
        if !matches!(self.phase, Phase::RollingBack(_)) {
            self.phase = Phase::RollingBack(end);
            self.reason = sentence;
            actions.push(announce(Kind::RollingBack, self.reason.clone()));
        }
        actions
    }

    fn finish(&mut self, end: End) -> Vec<Action> {
        self.phase = Phase::Ended(end);
        let sentence = format!("rollout of {} {end}: {}", self.order.service, self.reason);
        vec![Action::Settle, announce(Kind::Ended, sentence)]
    }

    fn begin_clock(&mut self, now: Millis) {
        self.entered = now;
        self.approved = false;
        self.verdict.clear();
    }

    fn current(&self) -> Option<&Step> {
        self.order.plan.steps.get(self.step)
    }

    /// Where it is, in words: `step 3 of 7: analysis at 5%`.
    pub fn place(&self) -> String {
        let total = self.order.plan.steps.len();
        let what = match self.current() {
            None => return format!("all {total} steps done, at {}", self.applied),
            Some(Step::Weight(share)) => format!("from {} to {share}", self.applied),
            Some(Step::Analyze { .. }) => format!("analysis at {}", self.applied),
            Some(Step::Pause(Pause::For(time))) => {
                format!("pause of {} at {}", humantime::format_duration(*time), self.applied)
            }
            Some(Step::Pause(Pause::UntilApproved)) => format!("awaits approval at {}", self.applied),
        };
        format!("step {} of {total}: {what}", self.step + 1)
    }

    fn inconclusive_sentence(&self, spent: Duration) -> String {
        let spent = humantime::format_duration(Duration::from_secs(spent.as_secs()));
        let verdict = if self.verdict.is_empty() { "the judge has said nothing yet" } else { &self.verdict };
        format!("{} inconclusive after {spent}: {verdict}", self.place())
    }

    fn going_back(&self, command: &str) -> Refused {
        refused(format!("cannot {command}: the rollout is being rolled back, {}", self.reason))
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            End::Promoted => "promoted",
            End::RolledBack => "rolled back",
            End::Aborted => "aborted",
        })
    }
}

fn announce(kind: Kind, sentence: String) -> Action {
    Action::Announce(Notice { kind, sentence })
}

fn refused(reason: String) -> Refused {
    Refused { reason }
}

fn told(done: &str, by: &str, reason: &str) -> String {
    if reason.is_empty() { format!("{done} by {by}") } else { format!("{done} by {by}: {reason}") }
}
