//! While the state is on its way to a successor: what comes in waits.
//!
//! If there is no successor after all, what waited is done in its order. If there is one, this process ends and whoever
//! waits is told so: the successor is to be asked again. Rollbacks were published before they came here, so the traffic
//! has moved; they call the succession off, because the successor would begin with the split before them.
//!
//! Invariant: nothing is journalled while the state is not ours.

use std::sync::atomic::Ordering::SeqCst;

use super::{Command, Driver};
use crate::control::command::Refusal;

/// Commands that may wait: far more than people give within seconds.
const MOST: usize = 1_024;

impl Driver {
    /// Writes what is owed and lets go of the state.
    pub(super) async fn release(&mut self) -> Result<(), Refusal> {
        self.pay_debts().await;
        if !self.owed.is_empty() {
            return Err(Refusal::Failed("the journal failed: the state cannot be handed over".to_owned()));
        }
        // From here on: what was rolled back before is in the state.
        self.shared.overtaken.store(false, SeqCst);
        self.held = Some(Vec::new());
        if let Err(error) = self.journal.release().await {
            self.held = None;
            return Err(Refusal::Failed(error.to_string()));
        }
        Ok(())
    }

    /// Takes the state back and does what waited.
    pub(super) async fn reclaim(&mut self) {
        if let Err(error) = self.journal.reclaim().await {
            tracing::error!(%error, "the state is not open again yet; tried again with the next change");
        }
        for command in self.held.take().unwrap_or_default() {
            self.take(command).await;
        }
    }

    /// Keeps a command for later if the state is not ours; else it is to be done now. What is too much is dropped, and
    /// whoever asked for it is told that this process ends.
    pub(super) fn hold(&mut self, command: Command) -> Option<Command> {
        let Some(held) = &mut self.held else { return Some(command) };
        let moved =
            matches!(command, Command::Rollback { .. } | Command::Worse(_) | Command::Act { swapped: Some(_), .. });
        if moved {
            self.shared.overtaken.store(true, SeqCst);
        }
        if held.len() < MOST {
            held.push(command);
        }
        None
    }
}
