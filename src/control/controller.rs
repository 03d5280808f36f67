//! The controller: the handle through which everything in the control plane is asked and changed.

use std::sync::Arc;

use crate::bridge::table::Plane;
use crate::control::command::{Act, Deploy, Done, Found, Refusal, Reloaded, ServiceStatus};
use crate::control::events::Events;
use crate::control::state::Finished;
use crate::domain::split::Share;

/// The cloneable handle.
#[derive(Clone)]
pub struct Controller {
    plane: Arc<Plane>,
    events: Arc<Events>,
}

#[allow(unused_variables, clippy::unused_async)]
impl Controller {
    /// What both planes share.
    pub fn plane(&self) -> &Plane {
        &self.plane
    }

    /// What happened.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// True once every worker has taken up a table and the process is not ending.
    pub fn is_ready(&self) -> bool {
        unimplemented!()
    }

    /// True if the last reload was taken (or none was tried).
    pub fn last_reload_ok(&self) -> bool {
        unimplemented!()
    }

    /// Rollbacks since the process began: by the judge, by people.
    pub fn rollbacks(&self) -> (u64, u64) {
        unimplemented!()
    }

    /// All services as they are now.
    pub fn services(&self) -> Vec<ServiceStatus> {
        unimplemented!()
    }

    /// One service as it is now.
    ///
    /// # Errors
    /// When there is no such service.
    pub fn service(&self, name: &str) -> Result<ServiceStatus, Refusal> {
        unimplemented!()
    }

    /// Sets the split; shares must sum to 100 %, pools left out get nothing.
    ///
    /// # Errors
    /// When it is not legal, not possible during a rollout, or `expected` is not the current epoch.
    pub async fn set_weights(
        &self,
        service: &str,
        shares: Vec<(String, Share)>,
        expected: Option<u64>,
        by: &str,
    ) -> Result<Done, Refusal> {
        unimplemented!()
    }

    /// All traffic to the active pool, at once.
    ///
    /// # Errors
    /// When there is no such service.
    pub async fn rollback(&self, service: &str, by: &str, reason: &str) -> Result<Done, Refusal> {
        unimplemented!()
    }

    /// Reads the configuration file again.
    ///
    /// # Errors
    /// When there is no file, it is not legal, or it takes away what is in use.
    pub async fn reload(&self, by: &str) -> Result<Reloaded, Refusal> {
        unimplemented!()
    }

    /// Starts a rollout; answers once it is journalled, before its first step is done.
    ///
    /// # Errors
    /// When one is running already, the pool is active already, or it has no healthy endpoint.
    pub async fn deploy(&self, deploy: Deploy) -> Result<Found, Refusal> {
        unimplemented!()
    }

    /// Acts on a rollout.
    ///
    /// # Errors
    /// When there is no such rollout, or the act is not possible now.
    pub async fn act(&self, rollout: &str, act: Act, by: &str) -> Result<Found, Refusal> {
        unimplemented!()
    }

    /// A rollout by id.
    ///
    /// # Errors
    /// When there is no such rollout.
    pub async fn rollout(&self, id: &str) -> Result<Found, Refusal> {
        unimplemented!()
    }

    /// Rollouts of a service that are over, newest first.
    ///
    /// # Errors
    /// When there is no such service or the store fails.
    pub async fn history(&self, service: &str, limit: usize) -> Result<Vec<Finished>, Refusal> {
        unimplemented!()
    }
}
