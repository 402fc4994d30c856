//! The `bygone` program.

fn main() -> std::process::ExitCode {
    bygone_agent::main_entry()
}
