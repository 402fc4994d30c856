//! Reading extended attributes: system calls that nix does not wrap.
//!
//! The agent stores the attributes of the files that it backs up. The mount asks another mount for its statistics, which
//! are an attribute too. Each function makes one call with its buffer, and reports failure as an [`Errno`], never by a
//! panic.

use std::ffi::CStr;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::libc;

use bygone_core::limits;

/// First size of the buffer: nearly all lists and values fit, and the kernel has little to clear.
const XATTR_BYTES_FIRST: usize = 1 << 10;
/// Second size of the buffer: Linux returns no longer list or value.
const XATTR_BYTES_LAST: usize = limits::XATTR_VALUE_BYTES_MAX;

/// Whose extended attributes are read.
#[derive(Clone, Copy)]
pub enum XattrsOf<'a> {
    /// A file or directory that is open for reading.
    Fd(BorrowedFd<'a>),
    /// A path; a symbolic link at its end is not followed.
    Path(&'a CStr),
}

/// The names of all extended attributes, each terminated by a NUL.
pub fn xattr_names(of: XattrsOf<'_>) -> Result<Vec<u8>, Errno> {
    filled(|to, size| {
        // SAFETY: the kernel writes at most `size` bytes to `to`, which `filled` promises to be that long; paths end
        // with a NUL by their type.
        #[allow(unsafe_code)]
        unsafe {
            match of {
                XattrsOf::Fd(fd) => libc::flistxattr(fd.as_raw_fd(), to.cast(), size),
                XattrsOf::Path(path) => libc::llistxattr(path.as_ptr(), to.cast(), size),
            }
        }
    })
}

/// The value of the extended attribute `name`.
pub fn xattr_value(of: XattrsOf<'_>, name: &CStr) -> Result<Vec<u8>, Errno> {
    filled(|to, size| {
        // SAFETY: the kernel writes at most `size` bytes to `to`, which `filled` promises to be that long; names and
        // paths end with a NUL by their type.
        #[allow(unsafe_code)]
        unsafe {
            match of {
                XattrsOf::Fd(fd) => libc::fgetxattr(fd.as_raw_fd(), name.as_ptr(), to.cast(), size),
                XattrsOf::Path(path) => libc::lgetxattr(path.as_ptr(), name.as_ptr(), to.cast(), size),
            }
        }
    })
}

/// Lets `call` fill a buffer (address, size) and return the number of bytes written; retries once with a larger buffer.
fn filled(call: impl Fn(*mut u8, usize) -> isize) -> Result<Vec<u8>, Errno> {
    for size in [XATTR_BYTES_FIRST, XATTR_BYTES_LAST] {
        let mut bytes: Vec<u8> = Vec::with_capacity(size);
        match Errno::result(call(bytes.as_mut_ptr(), size)) {
            Ok(got) => {
                let got = usize::try_from(got).unwrap_or(0).min(size);
                // SAFETY: `got` is within the capacity, and the kernel has just written that many bytes.
                #[allow(unsafe_code)]
                unsafe {
                    bytes.set_len(got);
                }
                bytes.shrink_to_fit();
                return Ok(bytes);
            }
            Err(Errno::ERANGE) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::E2BIG)
}
