//! Tests of conditions, routes and targets against requests made of a few texts.

mod conditions;
mod matching;
mod targets;

use std::net::IpAddr;

use super::*;

/// A request: as little as routing may know.
#[derive(Clone)]
struct Request {
    method: &'static str,
    target: String,
    host: &'static str,
    headers: &'static [(&'static str, &'static str)],
    client: IpAddr,
    scheme: Scheme,
}

/// A plain `GET` of a target.
fn get(target: &str) -> Request {
    Request {
        method: "GET",
        target: target.to_owned(),
        host: "shop.example.com",
        headers: &[],
        client: IpAddr::from([10, 1, 2, 3]),
        scheme: Scheme::Http,
    }
}

impl RequestView for Request {
    fn method(&self) -> &str {
        self.method
    }
    fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }
    fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }
    fn host(&self) -> &str {
        self.host
    }
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }
    fn client(&self) -> IpAddr {
        self.client
    }
    fn scheme(&self) -> Scheme {
        self.scheme
    }
}

fn pattern(text: &str) -> Pattern {
    text.parse().unwrap()
}

fn prefix(text: &str) -> Option<PathTest> {
    Some(PathTest::Prefix(path::pattern(text).unwrap()))
}
