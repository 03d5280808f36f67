//! Counts allocations: the system's allocator with a counter before it.
//!
//! Invariant: every call goes on to the system's allocator unchanged.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The counting allocator.
pub(crate) struct Counting;

static COUNT: AtomicU64 = AtomicU64::new(0);

// SAFETY: each method passes its arguments on to `System`, which keeps the contract; counting touches no memory of
// the allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, and the block came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.fetch_add(1, Relaxed);
        // SAFETY: the caller keeps the contract of `realloc`, and the block came from `System`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Allocations per call of `operation`, over many calls after a first one.
pub(crate) fn per_call<T>(mut operation: impl FnMut() -> T) -> f64 {
    const CALLS: u32 = 1_000;
    drop(operation());
    let before = COUNT.load(Relaxed);
    (0..CALLS).for_each(|_| drop(std::hint::black_box(operation())));
    (COUNT.load(Relaxed) - before) as f64 / f64::from(CALLS)
}
