//! The names of answers' fields as `h2` wants them, remembered by each worker: upstreams say the same ones all the time.
//!
//! To make a name anew means to look it up among the known ones, or to allocate it; to repeat it is a comparison. The
//! memory is a small table with one place for each name, where the last one that came stays.
//!
//! Invariant: what is remembered never decides anything: a name is the same whether it was known or made.

use std::cell::RefCell;

use http::header::HeaderName;

/// Places: several times the names that the services behind one proxy use.
const PLACES: usize = 128;
/// Longer names are made each time, so that what is held has a limit.
const LONGEST: usize = 64;

/// Names that came lately.
#[derive(Default)]
pub struct Names(RefCell<Vec<Option<HeaderName>>>);

impl Names {
    /// The name that `text` spells in any case; `None` if it is none.
    pub fn of(&self, text: &[u8]) -> Option<HeaderName> {
        let mut places = self.0.borrow_mut();
        if places.is_empty() {
            places.resize(PLACES, None);
        }
        let place = &mut places[place_of(text)];
        if let Some(name) = place.as_ref().filter(|name| name.as_str().as_bytes().eq_ignore_ascii_case(text)) {
            return Some(name.clone());
        }
        let name = HeaderName::from_bytes(text).ok()?;
        if text.len() <= LONGEST {
            *place = Some(name.clone());
        }
        Some(name)
    }
}

/// Where a name has its place: by its length and two letters, whatever their case.
fn place_of(text: &[u8]) -> usize {
    let letter = |at: usize| usize::from(text.get(at).map_or(0, |byte| byte | 0x20));
    let (first, middle) = (letter(0), letter(text.len() / 2));
    (text.len().wrapping_mul(37) ^ first.wrapping_mul(5) ^ middle.wrapping_mul(11)) % PLACES
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_name_is_the_same_whether_it_was_known_or_not(texts in prop::collection::vec("[ -~]{0,70}", 1..60)) {
            let names = Names::default();
            for text in texts.iter().chain(&texts) {
                prop_assert_eq!(names.of(text.as_bytes()), HeaderName::from_bytes(text.as_bytes()).ok());
            }
        }
    }

    #[test]
    fn a_name_that_comes_again_is_not_made_again() {
        let names = Names::default();
        let first = names.of(b"X-Shop-Version").unwrap();
        let again = names.of(b"x-shop-version").unwrap();
        assert_eq!(first.as_str().as_ptr(), again.as_str().as_ptr());
    }
}
