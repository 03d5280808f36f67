//! Tests of the e-value.
