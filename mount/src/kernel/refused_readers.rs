//! Processes that may not read file content: all, or those of certain names. Programs that read everything they see,
//! such as thumbnail generators and indexers, would fetch a whole repository from a far store.
//!
//! Names, attributes and data in the kernel's page cache are never refused, because they cost no request to the store.

use std::fs;

/// How many bytes Linux keeps of the name of a process.
const COMM_BYTES: usize = 15;

/// The processes whose reads are refused.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RefusedReaders {
    /// All processes are refused.
    pub all_processes: bool,
    /// Processes with one of these names are refused.
    pub names: Vec<String>,
}

impl RefusedReaders {
    /// True if the thread `pid` may not read.
    pub fn refuses(&self, pid: u32) -> bool {
        self.all_processes || (!self.names.is_empty() && names_of(pid).iter().any(|name| self.matches(name)))
    }

    fn matches(&self, name: &str) -> bool {
        let short = |name: &str| name.as_bytes().iter().take(COMM_BYTES).copied().collect::<Vec<u8>>();
        self.names.iter().any(|wanted| wanted == name || short(wanted) == name.as_bytes())
    }
}

/// The names of a thread: its own, that of its process, and that of the program that it runs.
fn names_of(pid: u32) -> Vec<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let process = status.lines().find_map(|line| line.strip_prefix("Tgid:")).map_or("", str::trim).to_owned();
    let comm = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).ok();
    let program = fs::read_link(format!("/proc/{pid}/exe")).ok();
    let program = program.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let names = [comm(&pid.to_string()), comm(&process), program];
    names.into_iter().flatten().map(|name| name.trim_end_matches('\n').to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_match_by_program_and_long_names_by_prefix() {
        let own = std::env::current_exe().unwrap().file_name().unwrap().to_string_lossy().into_owned();
        let refused_readers = |names: &[&str]| RefusedReaders {
            all_processes: false,
            names: names.iter().map(|n| n.to_string()).collect(),
        };
        assert!(refused_readers(&[&own]).refuses(std::process::id()));
        assert!(!refused_readers(&["another-program"]).refuses(std::process::id()));
        assert!(!refused_readers(&[]).refuses(std::process::id()));
        assert!(RefusedReaders { all_processes: true, names: vec![] }.refuses(0));
        assert!(refused_readers(&["tumbler-thumbnailer"]).matches("tumbler-thumbna"), "Linux keeps 15 bytes");
        assert!(!refused_readers(&["tumbler-thumbnailer"]).matches("tumbler"));
    }
}
