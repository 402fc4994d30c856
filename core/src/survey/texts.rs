//! What is said about chains that lack commits or have others.

/// Seen commits at the end of a chain are gone.
pub(super) const ROLLED_BACK: &str = "it was seen before and is gone: the store was rolled back to an earlier state, or \
                                      somebody deleted commits";
/// Commits at the end of a chain are gone that another chain has seen.
pub(super) const SEEN_BY_OTHERS: &str = "another machine has seen it, but it is gone: the store was rolled back to an \
                                         earlier state, or somebody deleted commits";
/// A commit within a chain is gone.
pub(super) const MISSING: &str = "the store has lost it: later commits of the same chain are there";
/// Added to what is wrong with a commit that was never seen.
pub(super) const UNSEEN: &str = "; this machine has never seen it, so it is either a damaged commit of another machine, \
                                 which that machine can put back with `bygone check --repair`, or a planted object, \
                                 which `bygone accept-loss` makes bygone ignore for ever";
/// There is another commit.
pub(super) const FORKED: &str = "it is not the commit that was there before, or does not follow the one before it: two \
                                 machines have written one chain (a copied home, a cloned machine), or the store shows \
                                 a different history than before";
