//! `teal endpoints SVC`: every endpoint, what it does and what stands against giving it requests.

use super::client::{Client, path};
use super::failure::{Exit, Failure};
use super::output::Output;
use super::table::{Side, table};
use crate::control::admin::wire::endpoints::{Endpoint, Endpoints};

const HEADING: [&str; 8] =
    ["POOL", "ENDPOINT", "PRIORITY", "WEIGHT", "STATE", "IN-FLIGHT", "CONNECTIONS", "AGAINST IT"];
const COLUMNS: [Side; 8] =
    [Side::Left, Side::Left, Side::Right, Side::Right, Side::Left, Side::Right, Side::Right, Side::Left];

/// What `endpoints` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  teal endpoints shop")]
pub(super) struct Arguments {
    /// The service
    #[arg(value_name = "SVC")]
    service: String,
}

/// Shows the endpoints of a service.
pub(super) async fn run(arguments: Arguments, client: &Client, output: Output<'_>) -> Result<Exit, Failure> {
    let endpoints: Endpoints = client.get(&path(&["services", &arguments.service, "endpoints"])).await?;
    output.show(&endpoints, text)?;
    Ok(Exit::Done)
}

fn text(endpoints: &Endpoints) -> String {
    let heading = HEADING.map(str::to_owned).to_vec();
    let rows: Vec<_> = std::iter::once(heading).chain(endpoints.endpoints.iter().map(row)).collect();
    table(0, &COLUMNS, &rows)
}

fn row(endpoint: &Endpoint) -> Vec<String> {
    let place = match &endpoint.target {
        Some(target) if !endpoint.address.ends_with(target.as_str()) => format!("{} at {target}", endpoint.address),
        _ => endpoint.address.clone(),
    };
    // That it drains is its state.
    let obstacles: Vec<_> = endpoint.obstacles.iter().filter(|obstacle| *obstacle != "draining").cloned().collect();
    let words = obstacles.join(", ").replace('_', " ");
    let against = match &endpoint.reason {
        Some(reason) => format!("{words}: {reason}"),
        None => words,
    };
    vec![
        endpoint.pool.clone(),
        place,
        endpoint.priority.to_string(),
        endpoint.weight.to_string(),
        endpoint.state.replace('_', " "),
        endpoint.in_flight.to_string(),
        endpoint.connections.to_string(),
        against,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_has_its_line() {
        let endpoint = |pool: &str, address: &str, target: &str, state: &str, obstacles: &[&str]| Endpoint {
            pool: pool.to_owned(),
            address: address.to_owned(),
            target: Some(target.to_owned()),
            weight: 100,
            priority: 1,
            state: state.to_owned(),
            obstacles: obstacles.iter().map(|obstacle| (*obstacle).to_owned()).collect(),
            reason: obstacles.contains(&"wrong_version").then(|| "reports v1, pool is v2".to_owned()),
            in_flight: 3,
            connections: 12,
        };
        let endpoints = vec![
            endpoint("blue", "http://10.0.0.1:80", "10.0.0.1:80", "in_use", &[]),
            endpoint("green", "http://app:80", "10.0.0.2:80", "draining", &["unhealthy", "draining"]),
            endpoint("green", "http://10.0.0.3:80", "10.0.0.3:80", "in_use", &["wrong_version"]),
        ];
        let expected = "\
POOL   ENDPOINT                      PRIORITY  WEIGHT  STATE     IN-FLIGHT  CONNECTIONS  AGAINST IT
blue   http://10.0.0.1:80                   1     100  in use            3           12
green  http://app:80 at 10.0.0.2:80         1     100  draining          3           12  unhealthy
green  http://10.0.0.3:80                   1     100  in use            3           12  wrong version: reports v1, pool is v2\n";
        assert_eq!(text(&Endpoints { service: "shop".to_owned(), endpoints }), expected);
    }
}
