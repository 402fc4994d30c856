//! What ends a mount.

/// Something that the thread in charge of a mount waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Somebody asked this process to end.
    Signal,
    /// The kernel has nothing to ask any more: the mount is gone.
    Ended,
}
