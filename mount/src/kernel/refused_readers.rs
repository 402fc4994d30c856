//! Whose reads of content are refused: everybody's, or those of programs that read everything and mean nothing by it,
//! such as makers of thumbnails and indexes, which would fetch a whole repository from a far store.
//!
//! Names, attributes and what is in the kernel's page cache already are never refused; they cost no request.

use std::fs;

/// Bytes that Linux keeps of a process's name.
const COMM_BYTES: usize = 15;

/// Who is refused.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RefusedReaders {
    /// Nobody reads any content.
    pub everybody: bool,
    /// Processes of these names do not.
    pub names: Vec<String>,
}

impl RefusedReaders {
    /// True if the thread `pid` must not read.
    pub fn refuses(&self, pid: u32) -> bool {
        self.everybody || (!self.names.is_empty() && names_of(pid).iter().any(|name| self.is_meant(name)))
    }

    fn is_meant(&self, name: &str) -> bool {
        let short = |name: &str| name.as_bytes().iter().take(COMM_BYTES).copied().collect::<Vec<u8>>();
        self.names.iter().any(|wanted| wanted == name || short(wanted) == name.as_bytes())
    }
}

/// What a thread may be called: by its own name, by that of its process, and by the program that it runs.
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
        let refused_readers =
            |names: &[&str]| RefusedReaders { everybody: false, names: names.iter().map(|n| n.to_string()).collect() };
        assert!(refused_readers(&[&own]).refuses(std::process::id()));
        assert!(!refused_readers(&["somebody-else"]).refuses(std::process::id()));
        assert!(!refused_readers(&[]).refuses(std::process::id()));
        assert!(RefusedReaders { everybody: true, names: vec![] }.refuses(0));
        assert!(refused_readers(&["tumbler-thumbnailer"]).is_meant("tumbler-thumbna"), "Linux keeps 15 bytes");
        assert!(!refused_readers(&["tumbler-thumbnailer"]).is_meant("tumbler"));
    }
}
