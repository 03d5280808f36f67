//! From the JSON of requests to the control plane's plain types: what is said must make sense.
//!
//! Invariant: what is returned as good satisfies the invariants of `domain::split` and `domain::rollout::plan`.
