//! The rollout: its plan and its state machine.

pub mod plan;
