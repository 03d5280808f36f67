//! The run-time state of one service: what users and rollouts change, and what a restart must keep.
//!
//! Plain values without serde; `store::record` mirrors them for the disk.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::drain::Orders;
use crate::domain::rollout::machine::{Rollout, UnixMillis};
use crate::domain::split::Share;

/// One service's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceState {
    /// The pool that serves; the target of a rollback.
    pub active: String,
    /// Every pool's share; they sum to 100 %. A pool that is not named has none.
    pub shares: BTreeMap<String, Share>,
    /// The weight epoch: bumped by every change of the split and by nothing else.
    pub epoch: u64,
    /// Salts the split, per rollout, so that not always the same users go first.
    pub salt: u64,
    /// Pools that were rolled back and not deployed again: QA overrides to them are off.
    pub rolled_back: BTreeSet<String>,
    /// What is out of use by an order.
    pub drained: Orders,
    /// The rollout under way.
    pub rollout: Option<Rollout>,
    /// Who made the last change: a user, or `teal` itself.
    pub changed_by: String,
    /// When the last change was made.
    pub changed_at: UnixMillis,
}

/// A rollout that ended, as kept in the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The rollout in its end.
    pub rollout: Rollout,
    /// When it ended.
    pub ended_at: UnixMillis,
}

impl ServiceState {
    /// A fresh service: `active` has all traffic.
    pub fn new(active: &str, changed_by: &str, changed_at: UnixMillis) -> ServiceState {
        ServiceState {
            active: active.to_owned(),
            shares: BTreeMap::from([(active.to_owned(), Share::ALL)]),
            epoch: 0,
            salt: 0,
            rolled_back: BTreeSet::new(),
            drained: Orders::default(),
            rollout: None,
            changed_by: changed_by.to_owned(),
            changed_at,
        }
    }

    /// The share of `pool`.
    pub fn share(&self, pool: &str) -> Share {
        self.shares.get(pool).copied().unwrap_or(Share::NONE)
    }

    /// What does not go to the active pool: the part of the traffic that is at risk.
    pub fn canary_share(&self) -> Share {
        self.share(&self.active).rest()
    }

    /// Gives `pool` this share and the active pool the rest; bumps the weight epoch.
    ///
    /// For `pool == active` it gives the active pool everything.
    pub fn give(&mut self, pool: &str, share: Share) {
        let share = if pool == self.active { Share::NONE } else { share };
        self.shares = BTreeMap::from([(self.active.clone(), share.rest())]);
        if !share.is_none() {
            self.shares.insert(pool.to_owned(), share);
        }
        self.epoch += 1;
    }

    /// Makes `pool` the active one with all traffic; bumps the weight epoch.
    pub fn activate(&mut self, pool: &str) {
        pool.clone_into(&mut self.active);
        self.rolled_back.remove(pool);
        self.give(pool, Share::NONE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_pool_gets_the_active_one_gives() {
        let mut state = ServiceState::new("blue", "ann", UnixMillis(0));
        let five = Share::from_basis_points(500).unwrap();
        state.give("green", five);
        assert_eq!((state.share("blue"), state.share("green"), state.canary_share()), (five.rest(), five, five));
        state.give("blue", five);
        assert_eq!((state.share("blue"), state.canary_share(), state.shares.len()), (Share::ALL, Share::NONE, 1));
        state.rolled_back.insert("green".to_owned());
        state.activate("green");
        assert_eq!((state.share("green"), state.share("blue"), state.epoch), (Share::ALL, Share::NONE, 3));
        assert!(state.rolled_back.is_empty() && state.active == "green");
    }
}
