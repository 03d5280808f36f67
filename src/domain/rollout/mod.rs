//! The rollout: its plan and its state machine.

pub mod event;
pub mod machine;
pub mod plan;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
