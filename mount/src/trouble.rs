//! Why the program ends before it should.

use bygone_cli::exit::Exit;
use bygone_cli::exit::Failure;
use bygone_core::error::Error;

/// Why a mount could not be made or kept.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// What can happen to any command: its line makes no sense, the repository does not open.
    #[error(transparent)]
    Command(#[from] Failure),
    /// The mount point, the kernel or this process does not allow it.
    #[error("{0}")]
    Mount(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble::Command(error.into())
    }
}

impl Trouble {
    /// How the program ends.
    pub fn exit(&self) -> Exit {
        match self {
            Trouble::Command(failure) => failure.exit(),
            Trouble::Mount(_) => Exit::Failed,
        }
    }
}
