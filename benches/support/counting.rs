//! An allocator that counts: what is allocated, and how often.
#![allow(unsafe_code, reason = "a global allocator cannot be had without; it only counts and passes on")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

/// The system's allocator, counting the whole process.
pub struct Counting {
    allocations: AtomicU64,
    bytes: AtomicU64,
    peak: AtomicU64,
}

impl Counting {
    pub const fn new() -> Self {
        Self { allocations: AtomicU64::new(0), bytes: AtomicU64::new(0), peak: AtomicU64::new(0) }
    }

    /// How many allocations there have been.
    pub fn allocations(&self) -> u64 {
        self.allocations.load(Ordering::SeqCst)
    }

    /// How many bytes are allocated now, as asked for: without what the allocator itself adds.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }

    /// The most bytes that have been allocated at once since [`forget_peak`](Self::forget_peak).
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::SeqCst)
    }

    /// Begins to look for the peak anew.
    pub fn forget_peak(&self) {
        self.peak.store(self.bytes(), Ordering::SeqCst);
    }
}

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.allocations.fetch_add(1, Ordering::Relaxed);
        let before = self.bytes.fetch_add(layout.size() as u64, Ordering::Relaxed);
        self.peak.fetch_max(before + layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller vouches for the layout.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        self.bytes.fetch_sub(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller vouches that the pointer came from `alloc` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}
