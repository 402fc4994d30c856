//! Announces that the mount is ready and that it ends: through a file descriptor, systemd's socket, or a file with our
//! process ID.
//!
//! The descriptor is taken before this process opens anything, because after that its number could belong to a file of
//! our own. If an announcement fails, a working mount goes on, with one exception: a process ID that cannot be written
//! ends the mount, because the file is needed to end it later.

use std::fs;
use std::fs::File;
use std::io;
use std::io::Write;
use std::os::fd::BorrowedFd;
use std::os::fd::FromRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::path::PathBuf;

use nix::fcntl::FcntlArg;
use nix::fcntl::FdFlag;
use nix::fcntl::fcntl;

use bygone_cli::exit::Failure;
use bygone_cli::terminal::output::one_line;

/// The lowest descriptor that is not a standard stream.
const DESCRIPTOR_MIN: i32 = 3;

/// Takes over the descriptor `number`, which the starting process left open. Nothing may have been opened before.
pub fn take_descriptor(number: i32) -> Result<File, Failure> {
    let refused = |why: &str| Failure::Usage(format!("--ready-fd {number}: {why}"));
    if number < DESCRIPTOR_MIN {
        return Err(refused("use a descriptor from 3 on, for example one opened by `3>file`"));
    }
    // SAFETY: the number is not negative, and the borrow ends with this call, which fails if nothing is open there.
    #[allow(unsafe_code)]
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    // Programs that we start must not keep it open.
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(|_| refused("it is not open"))?;
    // SAFETY: it is open, and as this process has opened nothing yet, nothing else here owns it.
    #[allow(unsafe_code)]
    Ok(unsafe { File::from_raw_fd(number) })
}

/// The places to announce at.
#[derive(Debug, Default)]
pub struct Announcer {
    /// Gets one line when the mount is ready, and is then closed.
    pub descriptor: Option<File>,
    /// The address of systemd's socket, from the variable NOTIFY_SOCKET.
    pub socket: Option<PathBuf>,
    /// Holds our process ID while the mount exists.
    pub pid_file: Option<PidFile>,
}

impl Announcer {
    /// Announces that the mount of `address` at `point` is ready and served by this process.
    pub fn ready(&mut self, address: &str, point: &Path) -> Result<(), Failure> {
        let pid = std::process::id();
        self.pid_file.as_ref().map_or(Ok(()), |file| file.write(pid))?;
        let status = one_line(&format!("mounted {address} at {}", point.display()));
        if let Some(mut file) = self.descriptor.take() {
            let _ = file.write_all(format!("{status}\n").as_bytes());
        }
        let _ = self.notify(&format!("READY=1\nMAINPID={pid}\nSTATUS={status}\n"));
        Ok(())
    }

    /// Announces that the mount is about to end.
    pub fn stopping(&self) {
        let _ = self.notify("STOPPING=1\nSTATUS=unmounting\n");
    }

    fn notify(&self, state: &str) -> io::Result<()> {
        let Some(socket) = &self.socket else { return Ok(()) };
        let bytes = socket.as_os_str().as_bytes();
        let address = match bytes.strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(socket)?,
        };
        UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
    }
}

/// A file with our process ID, removed when this is dropped.
#[derive(Debug)]
pub struct PidFile(PathBuf);

impl PidFile {
    /// A file that will be at `path` and is not written yet.
    pub fn new(path: PathBuf) -> PidFile {
        PidFile(path)
    }

    fn write(&self, pid: u32) -> Result<(), Failure> {
        fs::write(&self.0, format!("{pid}\n")).map_err(Failure::machine("write", self.0.display()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Another mount may have written its own ID there since.
        let own = std::process::id().to_string();
        if fs::read_to_string(&self.0).is_ok_and(|text| text.trim() == own) {
            let _ = fs::remove_file(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::IntoRawFd;

    use super::*;

    #[test]
    fn readiness_is_announced_in_every_way_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let (path, pid_file) = (dir.path().join("notify"), dir.path().join("pid"));
        let systemd = UnixDatagram::bind(&path).unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        let descriptor = Some(take_descriptor(writer.into_raw_fd()).unwrap());
        let mut announcer =
            Announcer { descriptor, socket: Some(path), pid_file: Some(PidFile::new(pid_file.clone())) };
        announcer.ready("/srv/r", Path::new("/mnt/a\nb")).unwrap();
        let mut line = String::new();
        reader.read_to_string(&mut line).unwrap();
        assert_eq!(line, "mounted /srv/r at /mnt/a b\n", "and then it is closed");
        let mut buffer = [0; 256];
        let mut heard = || {
            let length = systemd.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        };
        let pid = std::process::id();
        assert_eq!(heard(), format!("READY=1\nMAINPID={pid}\nSTATUS=mounted /srv/r at /mnt/a b\n"));
        assert_eq!(fs::read_to_string(&pid_file).unwrap(), format!("{pid}\n"));
        announcer.stopping();
        assert!(heard().starts_with("STOPPING=1\n"));
        drop(announcer);
        assert!(!pid_file.exists());
    }

    #[test]
    fn abstract_sockets_are_notified() {
        let name = format!("bygone-test-{}", std::process::id());
        let systemd = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let announcer = Announcer { socket: Some(format!("@{name}").into()), ..Announcer::default() };
        announcer.stopping();
        assert!(systemd.recv(&mut [0; 64]).unwrap() > 0);
    }

    #[test]
    fn a_pid_file_of_another_process_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        let mut announcer = Announcer { pid_file: Some(PidFile::new(path.clone())), ..Announcer::default() };
        announcer.ready("/r", Path::new("/mnt")).unwrap();
        fs::write(&path, "1\n").unwrap();
        drop(announcer);
        assert!(path.exists());
        let mut hopeless =
            Announcer { pid_file: Some(PidFile::new(dir.path().join("no/pid"))), ..Announcer::default() };
        assert!(hopeless.ready("/r", Path::new("/mnt")).unwrap_err().to_string().contains("no/pid"));
    }

    #[test]
    fn a_descriptor_that_is_not_open_is_refused() {
        for number in [-1, 0, 2, 1_000_000] {
            assert!(matches!(take_descriptor(number), Err(Failure::Usage(_))), "{number}");
        }
    }
}
