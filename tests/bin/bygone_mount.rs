//! The mount, as the tests run it.
fn main() -> std::process::ExitCode {
    std::process::ExitCode::from(bygone_mount::run(std::env::args_os()))
}
