//! The director: warms up, deploys, breaks green when it is told to, and follows what happens to the end.
//!
//! It decides nothing about the rollout; it reads the control plane's events like any other follower.
//!
//! Invariant: green is broken only while it has [`BREAK_AT`] or more, and has had it for [`BREAK_AFTER`].

use std::io::Write;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::clock::{self, Micros};
use crate::control::command::{Deploy, Found, Refusal, ServiceStatus};
use crate::control::events::Event;
use crate::demo::fault::Fail;
use crate::demo::sampler::{Sampler, Told, errors_of};
use crate::demo::stage::{RATE, SERVICE, Stage, plan};
use crate::demo::summary::Verdict;
use crate::demo::terminal::Screen;
use crate::demo::view::{View, plain_line, render, status_line};
use crate::domain::analysis::LEARN_FROM;
use crate::domain::rollout::machine::End;
use crate::domain::rollout::plan::Plan;
use crate::domain::split::Share;

/// How long blue is alone, at least, so that the judge learns what is normal.
const WARM_UP: Duration = Duration::from_millis(2_500);
/// Answers that blue must have given by then: the judge places its latency marks by them.
const WARM_ANSWERS: u64 = 2 * LEARN_FROM;
/// Green breaks when it has this share,
const BREAK_AT: Share = Share::from_basis_points(2_500).expect("a quarter");
/// and has had it for this long.
const BREAK_AFTER: Duration = Duration::from_millis(800);
/// A run that nobody watches goes on for this long after the end, so that its last answers are in the books.
const AFTERWARDS: Duration = Duration::from_secs(2);
/// The director's own grain.
const TICK: Duration = Duration::from_millis(50);
/// Ticks between two drawings, and between two status lines.
const DRAW: u32 = 5;
const STATUS: u32 = 20;

/// How the run goes.
#[derive(Clone, Debug)]
pub struct Script {
    /// How green breaks; `None` for a healthy one.
    pub fail: Option<Fail>,
    /// The longest the run may take; `None` for no limit.
    pub limit: Option<Duration>,
    /// Somebody watches: keep serving after the rollout's end.
    pub stays: bool,
    /// Colours in the block.
    pub colour: bool,
    /// The rollout's steps.
    pub plan: Plan,
    /// Requests a second.
    pub rate: f64,
}

impl Script {
    /// The usual run that nobody watches, for at most `limit`.
    pub fn new(fail: Option<Fail>, limit: Duration) -> Script {
        Script { fail, limit: Some(limit), stays: false, colour: false, plan: plan(), rate: RATE }
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How the rollout ended.
    pub verdict: Verdict,
    /// Why.
    pub reason: String,
    /// How long it took, in microseconds.
    pub took: u64,
    /// When the judge decided to roll back; `None` if it did not.
    pub decided: Option<Micros>,
    /// From that decision to the last worker's acknowledgement, in microseconds.
    pub swap: Option<u64>,
    /// When green was broken.
    pub broken: Option<Micros>,
    /// First attempts at green that had failed by the decision (or by the end without one).
    pub failed_attempts: u64,
    /// Failures of green that blue answered instead.
    pub rescued: u64,
}

/// Where the lines go.
pub enum Output {
    /// A block that is drawn again and again.
    Block(Screen),
    /// Plain lines.
    Lines(Box<dyn Write>),
}

/// The running show.
pub struct Director<'a> {
    stage: &'a Stage,
    script: Script,
    output: Output,
    sampler: Sampler,
    /// The newest event that was heard.
    heard: u64,
    ticks: u32,
    rollout: Option<(String, Micros)>,
    fuse: Fuse,
    ended: Option<Micros>,
    outcome: Outcome,
}

impl<'a> Director<'a> {
    /// A director before the first act.
    pub fn new(stage: &'a Stage, script: Script, output: Output) -> Director<'a> {
        let outcome = Outcome {
            verdict: Verdict::Undecided,
            reason: "the time was over before the rollout began".to_owned(),
            took: 0,
            decided: None,
            swap: None,
            broken: None,
            failed_attempts: 0,
            rescued: 0,
        };
        let sampler = Sampler::default();
        Director {
            stage,
            script,
            output,
            sampler,
            heard: 0,
            ticks: 0,
            rollout: None,
            fuse: Fuse::default(),
            ended: None,
            outcome,
        }
    }

    /// Runs the show to its end.
    ///
    /// # Errors
    /// When signals cannot be listened to, or the rollout is refused.
    pub async fn run(mut self) -> Result<Outcome, String> {
        let listen = |kind| signal(kind).map_err(|error| error.to_string());
        let mut signals = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        let controller = &self.stage.running.controller;
        let mut news = controller.events().follow();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !self.is_over() {
            tokio::select! {
                biased;
                () = asked_to_end(&mut signals) => break,
                Ok(()) = news.changed() => self.hear().await?,
                _ = tick.tick() => self.tick().await?,
            }
        }
        self.close()
    }

    /// Takes in every event since the last time.
    async fn hear(&mut self) -> Result<(), String> {
        let now = clock::now();
        for event in self.stage.running.controller.events().after(self.heard) {
            self.heard = event.id;
            let at = Duration::from_millis(event.at.saturating_sub(self.stage.begun_at));
            self.sampler.hear(at, &event);
            self.line(at, event.kind, &event.sentence);
            match event.kind {
                "rollback" => self.rolled_back(&event, now)?,
                // It names no rollout any more; there is only ours.
                "ended" => self.ended(now).await,
                _ => {}
            }
        }
        Ok(())
    }

    /// A rollback was swapped in, just now.
    fn rolled_back(&mut self, event: &Event, now: Micros) -> Result<(), String> {
        let by_the_judge = self.stage.running.controller.rollbacks().0 > 0;
        if self.outcome.decided.is_none() && by_the_judge {
            self.outcome.swap = event.took_us;
            self.outcome.decided = Some(Micros(now.0.saturating_sub(event.took_us.unwrap_or(0))));
            self.outcome.failed_attempts = failed_attempts(&self.status()?);
        }
        Ok(())
    }

    /// A rollout is over.
    async fn ended(&mut self, now: Micros) {
        let (Some((id, began)), None) = (&self.rollout, self.ended) else { return };
        // Until its end is durable it counts as running or as unknown; the next tick asks again.
        if let Ok(Found::Over(over)) = self.stage.running.controller.rollout(id).await {
            self.outcome.verdict = match over.rollout.end() {
                Some(End::Promoted) => Verdict::Promoted,
                Some(End::RolledBack | End::Aborted) => Verdict::RolledBack,
                None => Verdict::Undecided,
            };
            self.outcome.reason = over.rollout.reason;
            self.outcome.took = now.since(*began);
            self.ended = Some(now);
        }
    }

    async fn tick(&mut self) -> Result<(), String> {
        let status = self.status()?;
        let elapsed = self.elapsed();
        if self.rollout.is_none() && elapsed >= WARM_UP && self.stage.load.counts().answered >= WARM_ANSWERS {
            self.deploy().await?;
        }
        self.break_green(&status);
        if self.ended.is_none() && self.rollout.is_some() && status.rollout.is_none() {
            // Its event was heard before its end was durable.
            self.ended(clock::now()).await;
        }
        let drawing = matches!(self.output, Output::Block(_));
        if self.ticks.is_multiple_of(DRAW) {
            let view = self.look(&status);
            if drawing || self.ticks.is_multiple_of(STATUS) {
                self.show(&view);
            }
        }
        self.ticks = self.ticks.wrapping_add(1);
        Ok(())
    }

    async fn deploy(&mut self) -> Result<(), String> {
        let (service, to, by) = (SERVICE.to_owned(), "green".to_owned(), "teal demo".to_owned());
        let deploy = Deploy { service, to, plan: Some(self.script.plan.clone()), key: None, by };
        let found = self.stage.running.controller.deploy(deploy).await.map_err(said)?;
        let id = match found {
            Found::Running(rollout) => rollout.order.id,
            Found::Over(over) => over.rollout.order.id,
        };
        self.rollout = Some((id, clock::now()));
        Ok(())
    }

    /// Breaks green when its fuse has burnt down.
    fn break_green(&mut self, status: &ServiceStatus) {
        let green = status.pools.iter().find(|pool| pool.name == "green" && status.rollout.is_some());
        let (Some(fail), None) = (self.script.fail, self.outcome.broken) else { return };
        let now = clock::now();
        if !self.fuse.burns_down(green.map_or(Share::NONE, |green| green.share), now) {
            return;
        }
        self.outcome.broken = Some(now);
        self.stage.upstreams.break_green(fail);
        self.stage.running.controller.events().tell("fault", Some(SERVICE), None, fail.sentence().to_owned());
    }

    fn is_over(&self) -> bool {
        let after = |since: Micros, span: Duration| clock::now() >= since.after(span);
        let out_of_time = self.script.limit.is_some_and(|limit| after(self.stage.begun, limit));
        let done = !self.script.stays && self.ended.is_some_and(|ended| after(ended, AFTERWARDS));
        out_of_time || done
    }

    fn close(mut self) -> Result<Outcome, String> {
        let status = self.status()?;
        if self.outcome.decided.is_none() {
            self.outcome.failed_attempts = failed_attempts(&status);
        }
        if let (None, Some((_, began))) = (self.ended, &self.rollout) {
            self.outcome.took = clock::now().since(*began);
            self.outcome.reason = self.place(&status);
        }
        self.outcome.rescued = status.pools.iter().map(|pool| pool.rescued).sum();
        let view = self.look(&status);
        self.show(&view);
        Ok(self.outcome)
    }

    fn look(&mut self, status: &ServiceStatus) -> View {
        let why = self.ended.map(|_| self.outcome.reason.clone());
        let told = Told { mode: self.script.fail, place: self.place(status), why };
        self.sampler.look(self.stage, status, told)
    }

    fn place(&self, status: &ServiceStatus) -> String {
        match (&status.rollout, self.ended) {
            (Some(rollout), _) if rollout.is_running() => rollout.place(),
            (Some(rollout), _) => rollout.reason.clone(),
            (None, None) => "warming up: blue alone, so that the judge learns what is normal".to_owned(),
            (None, Some(_)) => {
                let end = match self.outcome.verdict {
                    Verdict::Promoted => "promoted",
                    _ => "rolled back",
                };
                let stay = if self.script.stays { "; still serving, Ctrl-C ends" } else { "" };
                format!("{end} after {:.1} s{stay}", self.outcome.took as f64 / 1e6)
            }
        }
    }

    fn show(&mut self, view: &View) {
        match &mut self.output {
            Output::Block(screen) => {
                let block = render(view, self.script.colour, screen.width);
                screen.draw(&block);
            }
            Output::Lines(_) => self.line(view.elapsed, "status", &status_line(view)),
        }
    }

    /// A plain line, where lines are shown.
    fn line(&mut self, at: Duration, kind: &str, sentence: &str) {
        if let Output::Lines(out) = &mut self.output {
            // A reader that went away does not stop the show.
            let _ = writeln!(out, "{}", plain_line(at, kind, sentence));
        }
    }

    fn elapsed(&self) -> Duration {
        Duration::from_micros(clock::now().since(self.stage.begun))
    }

    fn status(&self) -> Result<ServiceStatus, String> {
        self.stage.running.controller.service(SERVICE).map_err(said)
    }
}

/// Says when green may be broken.
#[derive(Debug, Default)]
struct Fuse {
    /// Since when green has enough.
    lit: Option<Micros>,
}

impl Fuse {
    /// True once green has had its share for long enough; with less it starts anew.
    fn burns_down(&mut self, share: Share, now: Micros) -> bool {
        if share < BREAK_AT {
            self.lit = None;
            return false;
        }
        now >= self.lit.get_or_insert(now).after(BREAK_AFTER)
    }
}

async fn asked_to_end(signals: &mut (Signal, Signal)) {
    tokio::select! {
        _ = signals.0.recv() => {}
        _ = signals.1.recv() => {}
    }
}

/// First attempts at green that failed: each further attempt was charged as well, so those are taken off.
fn failed_attempts(status: &ServiceStatus) -> u64 {
    let green = status.pools.iter().find(|pool| pool.name == "green");
    green.map_or(0, |green| errors_of(green).saturating_sub(green.retries))
}

fn said(refusal: Refusal) -> String {
    refusal.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn green_is_never_broken_before_it_has_a_quarter_for_a_while() {
        let mut fuse = Fuse::default();
        let mut at = |points, millis: u64| {
            let share = Share::from_basis_points(points).unwrap();
            fuse.burns_down(share, Micros(millis * 1_000))
        };
        let looks = [(500, 0), (500, 9_000), (2_499, 9_500), (2_500, 10_000), (2_500, 10_799)];
        assert!(looks.iter().all(|&(points, millis)| !at(points, millis)));
        assert!(!at(0, 10_900), "back to nothing: the fuse is out");
        assert!(!at(5_000, 11_000) && !at(5_000, 11_799) && at(5_000, 11_800));
    }
}
