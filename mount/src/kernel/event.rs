//! The events that end a mount.

/// An event that the thread in charge of a mount waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A signal asked this process to end.
    Signal,
    /// The kernel closed the connection: the mount is gone.
    Ended,
}
