//! The agent, as the tests run it.
fn main() -> std::process::ExitCode {
    bygone_agent::main_entry()
}
