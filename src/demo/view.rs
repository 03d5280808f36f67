//! What the demo shows: one block of lines that is drawn again and again, and the plain lines for where that is
//! not possible.
//!
//! Invariant: pure; no line is wider than asked for, so that the block never wraps and can be drawn over.

use std::time::Duration;

use crate::demo::fault::Fail;
use crate::domain::split::Share;

/// Events shown in the block.
pub const EVENTS: usize = 5;
/// Lines the judge has.
const JUDGE: usize = 3;
/// Columns before a bar or a sentence.
const INDENT: usize = 11;

/// Everything that is shown.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// Since the load began.
    pub elapsed: Duration,
    /// How green is to break.
    pub mode: Option<Fail>,
    /// The proxy's URL.
    pub proxy: String,
    /// The admin API's URL.
    pub admin: Option<String>,
    /// Where the rollout is, in words.
    pub place: String,
    /// Blue and green.
    pub pools: Vec<PoolView>,
    /// Requests that users had answered, and errors they saw.
    pub users: (u64, u64),
    /// Failures of one pool that the other answered instead.
    pub rescued: u64,
    /// What was wrong with the last of these errors.
    pub last_error: Option<String>,
    /// What the judge sees, while both pools have traffic.
    pub judge: Option<JudgeView>,
    /// Why the rollout ended, once it did.
    pub why: Option<String>,
    /// The newest events, oldest first: time since the load began, sentence.
    pub events: Vec<(Duration, String)>,
}

/// One pool.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolView {
    /// Its name.
    pub name: String,
    /// Its share.
    pub share: Share,
    /// Attempts that ended, a second, of late.
    pub rate: f64,
    /// Median of dispatch to response head of late, in microseconds.
    pub p50_us: Option<u64>,
    /// 99th percentile of the same.
    pub p99_us: Option<u64>,
    /// Answers of 500 and above and failed attempts since the start.
    pub errors: u64,
    /// Attempts that have not ended.
    pub in_flight: u64,
}

/// The judge.
#[derive(Clone, Debug, PartialEq)]
pub struct JudgeView {
    /// Evidence against green.
    pub evidence: f64,
    /// What a rollback needs.
    pub needed: f64,
    /// Its word on approval.
    pub sentence: String,
}

/// How a piece of text looks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Paint {
    Plain,
    Bold,
    Dim,
    Blue,
    Green,
    Red,
}

impl Paint {
    const fn code(self) -> &'static str {
        match self {
            Paint::Plain => "",
            Paint::Bold => "\x1b[1m",
            Paint::Dim => "\x1b[2m",
            Paint::Blue => "\x1b[34m",
            Paint::Green => "\x1b[32m",
            Paint::Red => "\x1b[31m",
        }
    }
}

type Line = Vec<(Paint, String)>;

/// The block, `width` columns wide; every line ends in a newline.
pub fn render(view: &View, colour: bool, width: usize) -> String {
    let mut lines = vec![title(view), pair("proxy", &view.proxy)];
    lines.extend(view.admin.iter().map(|admin| pair("admin", admin)));
    lines.push(Line::new());
    lines.push(pair("rollout", &view.place));
    lines.push(split(view, width));
    lines.push(Line::new());
    let header = format!(
        " {:<8}{:>7}{:>9}{:>11}{:>11}{:>9}{:>12}",
        "pool", "share", "req/s", "p50", "p99", "errors", "in flight"
    );
    lines.push(vec![(Paint::Dim, header)]);
    lines.extend(view.pools.iter().enumerate().map(|(at, pool)| row(pool, paint_of(at))));
    lines.push(users(view));
    lines.push(Line::new());
    lines.extend(judge(view, width));
    lines.push(Line::new());
    let blank = EVENTS.saturating_sub(view.events.len());
    lines.extend(view.events.iter().map(|(at, sentence)| event(*at, sentence)));
    lines.extend(std::iter::repeat_n(Line::new(), blank));
    lines.into_iter().map(|line| paint(&line, colour, width)).collect()
}

/// One plain line that says how things are.
pub fn status_line(view: &View) -> String {
    let pool = |pool: &PoolView| {
        let p99 = pool.p99_us.map_or(String::new(), |p99| format!(" p99 {}", millis(p99)));
        format!("{} {} {:.0}/s{p99}", pool.name, pool.share, pool.rate)
    };
    let pools = view.pools.iter().map(pool).collect::<Vec<_>>().join(", ");
    let judge = view.judge.as_ref().map_or(String::new(), |judge| {
        format!("; evidence {} of {}", evidence(judge.evidence), grouped(judge.needed as u64))
    });
    let (answered, errors) = view.users;
    let last = last_error(view);
    let rescued = grouped(view.rescued);
    let (answered, errors) = (grouped(answered), grouped(errors));
    format!("{pools}; users: {answered} answered, {errors} errors, {rescued} rescued{last}{judge}")
}

/// A time since the start and what happened then, for the plain form.
pub fn plain_line(at: Duration, kind: &str, sentence: &str) -> String {
    format!("{:>6.1} s  {kind:<12} {sentence}", at.as_secs_f64())
}

fn title(view: &View) -> Line {
    let mode = view.mode.map_or("green is healthy".to_owned(), |fail| format!("green will break: {fail}"));
    let seconds = view.elapsed.as_secs();
    let rest = format!("   blue to green, live   {mode}   {:02}:{:02}", seconds / 60, seconds % 60);
    vec![(Paint::Bold, " teal demo".to_owned()), (Paint::Dim, rest)]
}

fn pair(name: &str, value: &str) -> Line {
    vec![(Paint::Dim, format!(" {name:<10}")), (Paint::Plain, value.to_owned())]
}

/// The split as a bar: blue from the left, green from the right.
fn split(view: &View, width: usize) -> Line {
    let green = view.pools.last().map_or(Share::NONE, |pool| pool.share);
    let text = format!("  {} / {}", green.rest(), green);
    let room = bar_width(width, text.chars().count());
    // A pool with any share shows at least one column.
    let least = usize::from(!green.is_none());
    let most = room - usize::from(!green.rest().is_none());
    let columns = ((green.fraction() * room as f64).round() as usize).clamp(least, most);
    vec![
        (Paint::Dim, format!(" {:<10}", "split")),
        (Paint::Blue, "█".repeat(room - columns)),
        (Paint::Green, "▓".repeat(columns)),
        (Paint::Plain, text),
    ]
}

fn row(pool: &PoolView, paint: Paint) -> Line {
    let time = |micros: Option<u64>| micros.map_or("-".to_owned(), millis);
    let before = format!(
        "{:>7}{:>9}{:>11}{:>11}",
        pool.share.to_string(),
        grouped(pool.rate.round() as u64),
        time(pool.p50_us),
        time(pool.p99_us),
    );
    vec![
        (paint, format!(" {:<8}", pool.name)),
        (Paint::Plain, before),
        (alarm(pool.errors), format!("{:>9}", grouped(pool.errors))),
        (Paint::Plain, format!("{:>12}", grouped(pool.in_flight))),
    ]
}

fn users(view: &View) -> Line {
    let (answered, errors) = view.users;
    vec![
        (Paint::Plain, format!(" {:<10}{} answered, ", "users", grouped(answered))),
        (alarm(errors), format!("{} errors seen", grouped(errors))),
        (Paint::Plain, format!(", {} rescued", grouped(view.rescued))),
        (Paint::Dim, last_error(view)),
    ]
}

fn last_error(view: &View) -> String {
    view.last_error.as_ref().map_or(String::new(), |error| format!(" (last: {error})"))
}

/// The judge's word while it watches, else why it ended: always [`JUDGE`] lines.
fn judge(view: &View, width: usize) -> [Line; JUDGE] {
    let Some(judge) = &view.judge else {
        let (name, text) = match &view.why {
            Some(why) => ("why", why.as_str()),
            None => ("judge", "nothing to compare: one pool has all traffic"),
        };
        let mut lines = wrap(text, width.saturating_sub(INDENT)).into_iter();
        let mut next = |name| lines.next().map_or(Line::new(), |line| pair(name, &line));
        return std::array::from_fn(|at| next(if at == 0 { name } else { "" }));
    };
    let text = format!("  evidence {} of {}", evidence(judge.evidence), grouped(judge.needed as u64));
    let room = bar_width(width, text.chars().count());
    // Evidence multiplies, so its logarithm is what grows evenly.
    let part = (judge.evidence.max(1.0).ln() / judge.needed.max(2.0).ln()).clamp(0.0, 1.0);
    let columns = (part * room as f64).round() as usize;
    let bar = vec![
        (Paint::Dim, format!(" {:<10}", "judge")),
        (Paint::Red, "█".repeat(columns)),
        (Paint::Dim, "░".repeat(room - columns)),
        (Paint::Plain, text),
    ];
    [bar, pair("", &judge.sentence), Line::new()]
}

/// A text broken between words into at most [`JUDGE`] lines; the last one takes what is left.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let full = lines.len() == JUDGE;
        let last = lines.last_mut().expect("never empty");
        if !full && !last.is_empty() && last.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            let gap = if last.is_empty() { "" } else { " " };
            last.push_str(gap);
            last.push_str(word);
        }
    }
    lines
}

fn event(at: Duration, sentence: &str) -> Line {
    vec![(Paint::Dim, format!(" {:>6.1} s  ", at.as_secs_f64())), (Paint::Plain, sentence.to_owned())]
}

const fn paint_of(pool: usize) -> Paint {
    if pool == 0 { Paint::Blue } else { Paint::Green }
}

const fn alarm(count: u64) -> Paint {
    if count > 0 { Paint::Red } else { Paint::Plain }
}

/// Columns of a bar between the names on its left and a text on its right.
fn bar_width(width: usize, text: usize) -> usize {
    width.saturating_sub(INDENT + text + 1).clamp(1, 60)
}

/// A line cut to `width` columns, with or without colour. Every character used here is one column wide.
fn paint(line: &Line, colour: bool, width: usize) -> String {
    let mut out = String::new();
    let mut room = width;
    let length: usize = line.iter().map(|(_, text)| text.chars().count()).sum();
    for (paint, text) in line.iter().filter(|(_, text)| !text.is_empty()) {
        if room == 0 {
            break;
        }
        let cut = length > width && text.chars().count() >= room;
        let kept: String = text.chars().take(if cut { room.saturating_sub(1) } else { room }).collect();
        room -= kept.chars().count();
        let code = if colour { paint.code() } else { "" };
        out.push_str(code);
        out.push_str(&kept);
        if cut {
            out.push('…');
            room = 0;
        }
        if !code.is_empty() {
            out.push_str("\x1b[0m");
        }
    }
    out.push('\n');
    out
}

/// `3,901`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Microseconds as `12.8 ms`.
pub fn millis(micros: u64) -> String {
    let value = micros as f64 / 1_000.0;
    if value < 10.0 { format!("{value:.2} ms") } else { format!("{value:.1} ms") }
}

fn evidence(value: f64) -> String {
    match value {
        v if v < 10.0 => format!("{v:.1}"),
        v if v < 1e9 => grouped(v as u64),
        v => format!("{v:.1e}"),
    }
}

#[cfg(test)]
mod tests;
