//! `teal drain SVC POOL [ENDPOINT]` and `teal undrain SVC POOL [ENDPOINT]`: out of use, and back.

use std::time::Duration;

use http::Method;
use http::header::HeaderMap;

use super::client::{Client, path};
use super::failure::{Exit, Failure};
use super::output::Output;
use super::parse;
use crate::control::admin::wire::endpoints::{Endpoints, State, Use, Used};

/// What `drain` is told.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "It stays out of use, restarts included, until `teal undrain`. Without --deadline nothing is cut.\n\n\
    Example:\n  teal drain shop blue http://10.0.0.11:8080 --deadline 30s --wait"
)]
pub(super) struct Arguments {
    #[command(flatten)]
    part: Part,
    /// Cut what is still in flight after this long
    #[arg(long, value_name = "DURATION", env = "TEAL_DRAIN_DEADLINE", value_parser = parse::duration)]
    deadline: Option<Duration>,
    /// Stay until nothing is in flight there
    #[arg(long, env = "TEAL_DRAIN_WAIT", value_parser = clap::builder::FalseyValueParser::new())]
    wait: bool,
    /// With --wait: give up waiting (not the drain) after this long, exit code 4
    #[arg(long, value_name = "DURATION", env = "TEAL_DRAIN_TIMEOUT", requires = "wait", value_parser = parse::duration)]
    timeout: Option<Duration>,
    /// Even if a pool that has traffic is left without an endpoint
    #[arg(long, env = "TEAL_DRAIN_FORCE", value_parser = clap::builder::FalseyValueParser::new())]
    force: bool,
}

/// What `undrain` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  teal undrain shop blue http://10.0.0.11:8080")]
pub(super) struct UndrainArguments {
    #[command(flatten)]
    part: Part,
}

/// What is meant.
#[derive(Debug, clap::Args)]
struct Part {
    /// The service
    #[arg(value_name = "SVC")]
    service: String,
    /// The pool
    #[arg(value_name = "POOL")]
    pool: String,
    /// One address of it, as `teal endpoints` shows it; all of the pool without
    #[arg(value_name = "ENDPOINT")]
    endpoint: Option<String>,
}

/// Takes out of use.
pub(super) async fn run(arguments: Arguments, client: &Client, output: Output<'_>) -> Result<Exit, Failure> {
    let Arguments { part, deadline, wait, timeout, force } = arguments;
    let deadline = deadline.map(|deadline| humantime::format_duration(deadline).to_string());
    let mut used = order(&part, Use { state: State::Drained, deadline, force }, client).await?;
    if wait && used.in_flight > 0 {
        output.say(&text(&used))?;
        used.in_flight = within(timeout, emptied(&used, client)).await?;
        "drained".clone_into(&mut used.state);
    }
    output.show(&used, text)?;
    Ok(Exit::Done)
}

/// Puts into use again.
pub(super) async fn undrain(arguments: UndrainArguments, client: &Client, output: Output<'_>) -> Result<Exit, Failure> {
    let order = order(&arguments.part, Use { state: State::InUse, deadline: None, force: false }, client);
    output.show(&order.await?, text)?;
    Ok(Exit::Done)
}

async fn order(part: &Part, order: Use, client: &Client) -> Result<Used, Failure> {
    let mut segments = vec!["services", &part.service, "pools", &part.pool];
    segments.extend(part.endpoint.as_deref().into_iter().flat_map(|endpoint| ["endpoints", endpoint]));
    client.send(Method::PUT, &path(&segments), &order, HeaderMap::new()).await
}

async fn within<T>(limit: Option<Duration>, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let Some(limit) = limit else { return work.await };
    let late = || {
        let limit = humantime::format_duration(limit);
        Failure::Timeout(format!("requests are still in flight after {limit}; the drain goes on"))
    };
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(late()))
}

/// Waits until nothing is in flight at what was drained.
async fn emptied(used: &Used, client: &Client) -> Result<u64, Failure> {
    let path = path(&["services", &used.service, "pools", &used.pool, "endpoints"]);
    let mut look = tokio::time::interval(client.limits.look);
    loop {
        look.tick().await;
        let now: Endpoints = client.get(&path).await?;
        let meant = now
            .endpoints
            .iter()
            .filter(|endpoint| used.endpoint.as_ref().is_none_or(|address| endpoint.address == *address));
        if meant.map(|endpoint| endpoint.in_flight).fold(0, u64::wrapping_add) == 0 {
            return Ok(0);
        }
    }
}

fn text(used: &Used) -> String {
    let part = match &used.endpoint {
        Some(endpoint) => format!("{endpoint} of {}", used.pool),
        None => format!("pool {}", used.pool),
    };
    match used.state.as_str() {
        "in_use" => format!("{}: {part} is in use", used.service),
        "drained" => format!("{}: {part} is out of use, nothing is in flight", used.service),
        _ => format!("{}: {part} gets no more requests, {} in flight", used.service, used.in_flight),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_a_sentence() {
        let used = |state: &str, endpoint: Option<&str>| Used {
            service: "shop".to_owned(),
            pool: "blue".to_owned(),
            endpoint: endpoint.map(str::to_owned),
            state: state.to_owned(),
            in_flight: 3,
            version: 7,
            acknowledged_us: 300,
        };
        let table = [
            (used("in_use", None), "shop: pool blue is in use"),
            (used("draining", Some("http://a:1")), "shop: http://a:1 of blue gets no more requests, 3 in flight"),
            (used("drained", Some("http://a:1")), "shop: http://a:1 of blue is out of use, nothing is in flight"),
        ];
        for (used, expected) in table {
            assert_eq!(text(&used), expected);
        }
    }
}
