//! The `bygone-mount` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(bygone_mount::run(std::env::args_os()))
}
