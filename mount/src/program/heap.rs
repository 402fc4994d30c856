//! One heap for all threads.
//!
//! By default the allocator of glibc gives threads heaps of their own, up to eight a processor, and what one thread frees
//! is of no use to another. Frames are made by one thread and forgotten by another: so each heap keeps holes, and the
//! process takes half as much again as it uses. The threads of a mount allocate seldom and much at a time, so they do not
//! wait for one another.

/// Lets all threads share one heap, where the allocator is glibc's. To be called before there are threads.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
pub fn share() {
    // SAFETY: mallopt only sets a parameter of the allocator (mallopt(3)), and is called while there is one thread. Should
    // it refuse, more memory is taken, which is not an error.
    unsafe {
        nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1);
    }
}

/// Other allocators are left as they are.
#[cfg(not(target_env = "gnu"))]
pub fn share() {}
