//! Every metric: its name and what it means. Nothing else names one; labels are added where it is exported.
//!
//! Invariant: names begin with `teal_`; counters end in `_total`, what has a unit ends in it (`_seconds`, `_ratio`).

/// A metric's name and meaning.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// As exported.
    pub name: &'static str,
    /// As exported under `# HELP`.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($ident:ident = $name:literal, $help:literal;)*) => {
        $(#[doc = $help] pub const $ident: Metric = Metric { name: $name, help: $help };)*
        /// All of them, for the tests that guard the names.
        pub const ALL: &[Metric] = &[$($ident),*];
    };
}

metrics! {
    BUILD_INFO = "teal_build_info", "Always 1; the label carries the version.";
    TABLE_VERSION = "teal_table_version", "Version of the routing table that every worker has taken up.";
    RELOAD_OK = "teal_config_last_reload_successful", "1 if the last reload of the configuration was taken, 0 if it was refused.";
    CONNECTIONS_OPEN = "teal_client_connections", "Client connections open now.";
    CONNECTIONS_ACCEPTED = "teal_client_connections_accepted_total", "Client connections accepted.";
    CONNECTIONS_LIMIT = "teal_client_connections_limit", "Client connections allowed at one time.";
    CONNECTIONS_REFUSED = "teal_client_connections_refused_total", "Client connections closed before they were served, by reason.";
    CONNECTIONS_CLOSED = "teal_client_connections_closed_total", "Client connections that Teal closed by itself, by reason.";
    HTTP2_CONNECTIONS = "teal_http2_connections_total", "Client connections that spoke HTTP/2.";
    HTTP2_ABUSES = "teal_http2_abuses_total", "HTTP/2 client connections ended for how the client used the protocol, by reason.";
    ACCEPT_PAUSES = "teal_accept_pauses_total", "How often a worker stopped accepting for a while, by reason.";
    WORKER_CONNECTIONS = "teal_worker_connections", "Client connections of a worker open now.";
    WORKER_BUSY = "teal_worker_busy_connections", "Client connections of a worker with a request within about the last second.";
    WORKER_HANDED_OVER = "teal_worker_handed_over_total", "Client connections that a worker accepted and handed to a less loaded one.";
    WORKER_REQUESTS = "teal_worker_requests_total", "Requests that reached a worker.";
    WORKER_LAG = "teal_worker_lag_seconds", "Worst delay of a worker's loop within the last minute at most.";
    REQUESTS_REFUSED = "teal_requests_refused_total", "Requests answered by Teal itself: malformed, or no service claims them.";
    REQUESTS_SHED = "teal_requests_shed_total", "Requests answered 503 at once because the process has enough to do, by reason.";
    RATE_LIMITED = "teal_rate_limit_refused_total", "Requests answered 429, by limit; the route is empty for a limit of the service.";
    RATE_LIMIT_CROWDED = "teal_rate_limit_crowded_total", "Keys of a rate limit that began with the debt of another, because it remembers too few.";
    CONCURRENCY_LIMIT = "teal_service_concurrency_limit", "Requests of a service that may be in flight.";
    CONCURRENCY = "teal_service_in_flight", "Requests of a service in flight, where that has a limit.";
    SERVICE_SHED = "teal_service_requests_shed_total", "Requests answered 503 at once because the service has as many as it may have.";
    FAULTS_ACTIVE = "teal_service_injected_faults", "Faults that are injected into a service now; anything but 0 is a drill.";
    FAULTS_INJECTED = "teal_injected_faults_total", "Requests that an injected fault hit, by fault, as long as it lasts.";
    ACCESS_LOG_DROPPED = "teal_access_log_dropped_total", "Access log lines dropped because the log could not keep up.";
    TLS_HANDSHAKES = "teal_tls_handshakes_total", "TLS handshakes with clients, by whether an earlier session was resumed.";
    TLS_FAILURES = "teal_tls_handshake_failures_total", "TLS handshakes with clients that failed, by kind.";
    CERTIFICATE_END = "teal_certificate_expiry_timestamp_seconds", "When a certificate with a key of ours expires, in seconds since 1970.";
    RESPONSES = "teal_pool_responses_total", "Response heads received from a pool, by status class.";
    FAILURES = "teal_pool_failures_total", "Attempts at a pool that failed, by kind.";
    REQUESTS_CUT = "teal_requests_cut_total", "Requests cut because the time for a drain or for the end of the process was over.";
    RETRIES = "teal_pool_retries_total", "Further attempts after a failed one.";
    HEDGES = "teal_pool_hedges_total", "Second attempts at a pool beside one that took long.";
    HEDGE_WINS = "teal_pool_hedge_wins_total", "Second attempts that answered first.";
    RESCUED = "teal_pool_rescued_total", "Failures of a pool that the active pool answered instead.";
    UNRESCUED = "teal_pool_rescue_refused_total", "Failures of a pool that the active pool would have answered, by why it did not.";
    RETRIES_IN_FLIGHT = "teal_service_retries_in_flight", "Retries of a service that have no response head yet.";
    LATENCY = "teal_pool_latency_seconds", "Dispatch to response head of answers below 500.";
    IN_FLIGHT = "teal_pool_in_flight", "Attempts at a pool that have not ended.";
    LONG_STREAMS = "teal_pool_long_streams", "Attempts at a pool that have been streaming for ten seconds or more.";
    SHARE = "teal_pool_share_ratio", "Share of traffic of a pool, 0 to 1.";
    PRIORITY_SHARE = "teal_pool_priority_share_ratio", "Share of a pool's requests that goes to endpoints of a priority, 0 to 1.";
    POOL_PANIC = "teal_pool_panic", "1 while so few of a pool's endpoints are eligible that their ejections and breakers do not count.";
    ACTIVE = "teal_pool_active", "1 for the pool that rollbacks return to.";
    EPOCH = "teal_service_weight_epoch", "Counts changes of a service's split.";
    ENDPOINT_HEALTHY = "teal_endpoint_healthy", "1 if an endpoint may be given requests.";
    OBSTRUCTED = "teal_pool_obstructed_endpoints", "Endpoints of a pool that get no requests, by what stands against them.";
    EJECTIONS = "teal_pool_ejections_total", "Endpoints of a pool taken out by their own results, by cause.";
    NAME_ADDRESSES = "teal_name_addresses", "Addresses that the name of an endpoint has.";
    NAME_FAILURES = "teal_name_lookup_failures_total", "Lookups of an endpoint's name that failed or brought no address.";
    QUEUE = "teal_pool_queue", "Requests that wait for room in a pool that has limits.";
    OVERFLOWED = "teal_pool_overflow_total", "Requests answered 503 for want of room in a pool, by reason.";
    BREAKER_STATE = "teal_pool_breaker_state", "A pool's breaker: 0 closed, 1 half open, 2 open.";
    BREAKER_TRIPS = "teal_pool_breaker_trips_total", "How often a pool's breaker opened.";
    DIVERTED = "teal_pool_diverted_total", "Requests sent to the active pool in place of one whose breaker is open.";
    BLOCKED = "teal_pool_blocked_total", "Requests answered 503 because a pool's breaker is open.";
    ENDPOINT_BREAKER_STATE = "teal_endpoint_breaker_state", "An endpoint's own breaker: 0 closed, 1 half open, 2 open.";
    ENDPOINT_BREAKER_TRIPS = "teal_endpoint_breaker_trips_total", "How often an endpoint's own breaker opened.";
    EVIDENCE = "teal_judge_evidence_ratio", "Evidence that the canary is worse, as a share of what a rollback needs.";
    ROLLBACKS = "teal_service_rollbacks_total", "Rollbacks since the process began, by who asked for them.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_and_are_unique() {
        let mut seen = std::collections::HashSet::new();
        for Metric { name, help } in ALL {
            assert!(name.starts_with("teal_") && seen.insert(name), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{name}");
            assert!(help.ends_with('.'), "{name}");
        }
    }
}
