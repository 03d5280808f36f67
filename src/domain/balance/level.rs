//! One level: the endpoints of one priority, and the pick among them.
//!
//! The draws and the round accept or pass over; only when luck has failed a few times in a row (most of the level is out,
//! or cold) are all endpoints looked at. Passing over keeps the proportions of the rest, so both ways share alike.
//!
//! Invariant: an endpoint that is not open is never picked, and an open one is always found if there is one.

use std::cell::OnceCell;

use super::cycle::Cycle;
use super::draw::{Dice, Odds};
use super::hashing::{Bound, Hashing};
use super::maglev::Maglev;
use super::ring::Ring;
use super::{Factor, Live, Member, Policy, WARM};
use crate::domain::split::mix;

/// Draws before everybody is looked at.
const DRAWS: usize = 8;
/// Draws for a second one to compare with: without one the first is good enough.
const RIVALS: usize = 4;
/// Turns of a round that may pass before everybody is looked at.
const TURNS: usize = 128;
/// Steps of a walk before everybody is looked at: with as many a level of which a tenth is open is met in all but one
/// of a thousand.
const STEPS: usize = 64;

#[derive(Debug)]
pub(super) struct Level {
    priority: u8,
    places: Box<[Place]>,
    weight: u64,
    method: Method,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    /// In the pool.
    at: usize,
    seat: u64,
    weight: u32,
}

#[derive(Debug)]
enum Method {
    Round(Cycle),
    Fewest(Odds),
    Fastest(Odds),
    Ring(Ring, Option<Factor>),
    Table(Maglev, Option<Factor>),
}

impl Level {
    /// A level of members with their places in the pool; at least one.
    pub(super) fn new(policy: &Policy, members: &[(usize, &Member)]) -> Level {
        let place = |(at, member): &(usize, &Member)| Place {
            at: *at,
            seat: member.seat,
            weight: u32::from(member.rank.weight.max(1)),
        };
        let places: Box<[Place]> = members.iter().map(place).collect();
        let weights: Vec<u32> = places.iter().map(|place| place.weight).collect();
        let seats = || places.iter().map(|place| (place.seat, place.weight)).collect::<Vec<_>>();
        let method = match policy {
            Policy::RoundRobin => Method::Round(Cycle::new(&weights)),
            Policy::LeastRequest => Method::Fewest(Odds::new(&weights)),
            Policy::PeakEwma => Method::Fastest(Odds::new(&weights)),
            Policy::RingHash(Hashing { load_factor, .. }) => Method::Ring(Ring::new(&seats()), *load_factor),
            Policy::Maglev(Hashing { load_factor, .. }) => Method::Table(Maglev::new(&seats()), *load_factor),
        };
        let weight = weights.iter().map(|weight| u64::from(*weight)).sum();
        Level { priority: members.first().map_or(0, |(_, member)| member.rank.priority), places, weight, method }
    }

    pub(super) fn priority(&self) -> u8 {
        self.priority
    }

    /// The sum of all weights.
    pub(super) fn weight(&self) -> u64 {
        self.weight
    }

    /// The endpoints, by place in the pool and with their weights.
    pub(super) fn members(&self) -> impl Iterator<Item = (usize, u64)> {
        self.places.iter().map(|place| (place.at, u64::from(place.weight)))
    }

    /// Picks one that is open; `number` is the level's among the plan's.
    pub(super) fn pick(&self, number: usize, key: u64, dice: &mut Dice, live: &impl Live) -> Option<usize> {
        if let [only] = &*self.places {
            return live.is_open(only.at).then_some(only.at);
        }
        let place = match &self.method {
            Method::Round(cycle) => self.in_turn(cycle, number, dice, live),
            Method::Fewest(odds) => self.of_two(odds, dice, live, |place| live.load(place.at) as f64),
            Method::Fastest(odds) => {
                // Latency times what would be in flight, in units of the mean weight: for equal weights that is the
                // formula known from Finagle, and endpoints that are idle compare by their latency alone.
                let mean = self.weight as f64 * f64::from(WARM) / self.places.len() as f64;
                self.of_two(odds, dice, live, |place| {
                    live.pace(place.at) * (live.load(place.at) as f64 * mean + self.strength(place, live))
                })
            }
            Method::Ring(ring, factor) => self.by_key(ring.walk(key), key, *factor, live),
            Method::Table(table, factor) => self.by_key(table.walk(key), key, *factor, live),
        };
        place.map(|place| self.places[place].at)
    }

    /// The next in turn.
    fn in_turn(&self, cycle: &Cycle, number: usize, dice: &mut Dice, live: &impl Live) -> Option<usize> {
        match cycle.next(live.turn(number), TURNS, |place| self.accepts(place, dice, live)) {
            Some((place, next)) => {
                live.turned(number, next);
                Some(place)
            }
            None => self.scan(dice, live),
        }
    }

    /// The better of two: the one with less cost for its weight, the first if they are even, so that weights hold where
    /// there is nothing to choose by.
    fn of_two(&self, odds: &Odds, dice: &mut Dice, live: &impl Live, cost: impl Fn(&Place) -> f64) -> Option<usize> {
        let draw = |dice: &mut Dice| {
            let place = odds.draw(dice);
            self.accepts(place, dice, live).then_some(place)
        };
        let first = (0..DRAWS).find_map(|_| draw(dice)).or_else(|| self.scan(dice, live))?;
        let rival = match self.places.len() {
            2 => Some(1 - first).filter(|other| self.accepts(*other, dice, live)),
            _ => (0..RIVALS).find_map(|_| draw(dice).filter(|other| *other != first)),
        };
        let Some(rival) = rival else { return Some(first) };
        let (one, other) = (&self.places[first], &self.places[rival]);
        let better = cost(other) * self.strength(one, live) < cost(one) * self.strength(other, live);
        Some(if better { rival } else { first })
    }

    /// The first on a key's walk that is open, warm enough for this key, and has room.
    fn by_key(
        &self,
        walk: impl Iterator<Item = usize>,
        key: u64,
        factor: Option<Factor>,
        live: &impl Live,
    ) -> Option<usize> {
        let bound = OnceCell::new();
        let has_room = |place: &Place| {
            let (Some(factor), load @ 1..) = (factor, live.load(place.at)) else { return true };
            let bound = bound.get_or_init(|| self.bound(factor, live));
            bound.has_room(self.strength(place, live) as u64, load)
        };
        let is_warm = |place: &Place| match live.warmth(place.at) {
            WARM.. => true,
            // By key and endpoint, so that a key that has returned stays.
            warmth => (mix(key ^ place.seat) as u32 & (WARM - 1)) < warmth,
        };
        let on_walk = |place: &usize| {
            let place = &self.places[*place];
            live.is_open(place.at) && is_warm(place) && has_room(place)
        };
        let rest = || {
            let start = key as usize % self.places.len();
            (start..self.places.len()).chain(0..start).filter(|place| live.is_open(self.places[*place].at))
        };
        let mut walk = walk.take(STEPS);
        let found = walk.find(on_walk).or_else(|| rest().find(|place| has_room(&self.places[*place])));
        found.or_else(|| rest().next())
    }

    /// What the open endpoints may carry.
    fn bound(&self, factor: Factor, live: &impl Live) -> Bound {
        let open = self.places.iter().filter(|place| live.is_open(place.at));
        let sum =
            |(load, weight), place: &Place| (load + live.load(place.at), weight + self.strength(place, live) as u64);
        let (load, weight) = open.fold((0, 0), sum);
        Bound::new(factor, load, weight)
    }

    /// Open, and not passed over because it is still cold.
    fn accepts(&self, place: usize, dice: &mut Dice, live: &impl Live) -> bool {
        let at = self.places[place].at;
        live.is_open(at) && dice.comes_up(live.warmth(at), WARM)
    }

    /// Its weight as far as it is warm. Whole numbers, and exact as such.
    fn strength(&self, place: &Place, live: &impl Live) -> f64 {
        f64::from(place.weight) * f64::from(live.warmth(place.at))
    }

    /// Draws among all that are open, by weight and warmth.
    fn scan(&self, dice: &mut Dice, live: &impl Live) -> Option<usize> {
        let open = |place: &Place| if live.is_open(place.at) { self.strength(place, live).max(1.0) as u64 } else { 0 };
        let total: u64 = self.places.iter().map(open).sum();
        let mut left = ((u128::from(dice.roll()) * u128::from(total)) >> 64) as u64;
        // Who goes or comes between the two looks only bends the odds: the last one stands in.
        let mut last = None;
        for (place, weight) in self.places.iter().map(open).enumerate().filter(|(_, weight)| *weight > 0) {
            last = Some(place);
            if left < weight {
                break;
            }
            left -= weight;
        }
        last
    }
}
