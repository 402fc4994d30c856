//! Makes all threads share one heap.
//!
//! By default glibc's allocator gives threads heaps of their own, up to eight per processor, and memory that is freed
//! in one heap cannot be used in another. Frames are allocated by one thread and freed by another, so each heap keeps
//! holes, and the process takes half as much memory again as it uses. The threads of a mount allocate rarely and in
//! large pieces, so sharing a heap does not make them wait for each other.

/// Makes all threads share one heap if the allocator is glibc's. Must be called before there are threads.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
pub fn share() {
    // SAFETY: mallopt only sets a parameter of the allocator (mallopt(3)), and is called while there is one thread. If
    // it fails, the process takes more memory, which is not an error.
    unsafe {
        nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1);
    }
}

/// Other allocators are left alone.
#[cfg(not(target_env = "gnu"))]
pub fn share() {}
