//! Admission: whether a request comes in at all, asked once, when its service and route are known and nothing is sent.
//!
//! What is refused here is nobody's failure: no pool has seen it, so no pool is judged by it. Whoever comes in keeps a
//! ticket until the answer is out, or until a switch of protocols made a tunnel of it: a WebSocket of hours is a
//! connection, not a request in flight.
//!
//! Invariant: a request is counted once, however many rounds it goes and whatever table it ends by.

use crate::bridge::admission::Shed;
use crate::bridge::intake::{Refused, Ticket};
use crate::bridge::table::Service;
use crate::clock;
use crate::domain::rate;
use crate::domain::route::RequestView;
use crate::proxy::error::Fault;
use crate::proxy::worker::Worker;

/// One request's way in.
#[derive(Debug, Default)]
pub enum Pass {
    /// Not asked for yet.
    #[default]
    Pending,
    /// It is in, with a ticket if its service counts those in flight.
    Admitted(Option<Ticket>),
}

impl Pass {
    /// Refuses a request of any service if this process has enough to do.
    ///
    /// # Errors
    /// When it has.
    pub fn before_routing(worker: &Worker) -> Result<(), Fault> {
        let snapshot = worker.snapshot();
        let client = &snapshot.table.client;
        let full = client.max_in_flight.is_some_and(|most| worker.is_full(most));
        let late = client.max_lag.is_some_and(|most| u128::from(worker.lasting_lag()) > most.as_micros());
        if !full && !late {
            return Ok(());
        }
        let shed = if full { Shed::InFlight } else { Shed::Lag };
        worker.tally().shed[shed as usize].add(1);
        Err(Fault::Overloaded)
    }

    /// Lets a request of a service's route (by index) in, unless it is in already.
    ///
    /// # Errors
    /// When it may not come in.
    pub fn enter(
        &mut self,
        worker: &Worker,
        service: &Service,
        route: usize,
        request: &impl RequestView,
    ) -> Result<(), Fault> {
        if matches!(self, Pass::Admitted(_)) {
            return Ok(());
        }
        let ticket = match service.intake.is_open() {
            true => None,
            false => admit(worker, service, route, request)?,
        };
        *self = Pass::Admitted(ticket);
        Ok(())
    }
}

fn admit(
    worker: &Worker,
    service: &Service,
    route: usize,
    request: &impl RequestView,
) -> Result<Option<Ticket>, Fault> {
    let now = if service.intake.has_rates() { rate::ticks(clock::now().0) } else { 0 };
    service.intake.enter(worker.index, route, request, now).map_err(|refused| match refused {
        Refused::TooOften(wait) => Fault::TooOften(wait.seconds()),
        Refused::Full => Fault::ServiceFull,
    })
}
