//! The agent: the user's files and the command line.
