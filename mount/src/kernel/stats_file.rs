//! The numbers of the mount in a file, for programs that watch files. While they change, the file is replaced about
//! every second.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::Receiver;
use crossbeam_channel::RecvTimeoutError;
use crossbeam_channel::Sender;
use crossbeam_channel::bounded;

use crate::kernel::log::Log;
use crate::kernel::stats::Stats;

/// How often the numbers are checked.
const PERIOD: Duration = Duration::from_secs(1);

/// The writing thread. When this is dropped, it writes once more and ends.
pub struct StatsFile {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl StatsFile {
    /// Writes to `path`, which must be absolute, at once and then whenever the numbers change.
    pub fn start(stats: Arc<Stats>, path: PathBuf, log: Arc<Log>) -> io::Result<StatsFile> {
        write(&stats, &path)?;
        let (stop, stopped) = bounded(0);
        let thread = thread::Builder::new().name("stats-file".to_owned());
        let thread = thread.spawn(move || keep(&stats, &path, &log, &stopped))?;
        Ok(StatsFile { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for StatsFile {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It returns nothing.
            let _ = thread.join();
        }
    }
}

fn keep(stats: &Stats, path: &Path, log: &Log, stopped: &Receiver<()>) {
    let mut written = stats.report();
    loop {
        let is_last = stopped.recv_timeout(PERIOD) != Err(RecvTimeoutError::Timeout);
        let now = stats.report();
        if !now.counts_as(&written) || is_last {
            if let Err(error) = write(stats, path) {
                log.once("stats file", || format!("cannot write {}: {error}", path.display()));
            }
            written = now;
        }
        if is_last {
            return;
        }
    }
}

/// Replaces the file as a whole, so that no reader sees half of it.
fn write(stats: &Stats, path: &Path) -> io::Result<()> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut text = stats.value();
    text.push(b'\n');
    fs::write(&new, text)?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::stats::Operation;
    use crate::kernel::stats::Report;
    use crate::testing::Sample;

    #[test]
    fn the_file_exists_at_once_and_ends_with_the_last_numbers() {
        let (sample, dir) = (Sample::new(), tempfile::tempdir().unwrap());
        sample.backup(1, &[], Vec::new());
        let path = dir.path().join("stats.json");
        let stats = Arc::new(Stats::new(Arc::new(sample.tree()), sample.reader(), None));
        let log = Arc::new(Log::to_stderr());
        let file = StatsFile::start(Arc::clone(&stats), path.clone(), log).unwrap();
        let read = || serde_json::from_slice::<Report>(&fs::read(&path).unwrap()).unwrap();
        assert!(read().requests.is_empty());
        stats.count(Operation::Statfs);
        drop(file);
        assert_eq!(read().requests["statfs"], 1);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn an_unwritable_place_is_refused() {
        let (sample, dir) = (Sample::new(), tempfile::tempdir().unwrap());
        sample.backup(1, &[], Vec::new());
        let stats = Arc::new(Stats::new(Arc::new(sample.tree()), sample.reader(), None));
        let log = Arc::new(Log::to_stderr());
        assert!(StatsFile::start(stats, dir.path().join("no/stats"), log).is_err());
    }
}
