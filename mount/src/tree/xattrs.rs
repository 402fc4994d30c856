//! Extended attributes, and whether the kernel enforces the access lists among them.

use std::sync::atomic::Ordering;

use bygone_core::read::View;

use crate::tree::Tree;
use crate::tree::facts;
use crate::tree::facts::Of;
use crate::tree::inode::Inode;
use crate::tree::moments::Moment;
use crate::tree::operation_error::OperationError;

/// Attributes whose names begin with this hold access lists.
const ACCESS_LISTS: &[u8] = b"system.posix_acl_";

impl Tree {
    /// True if anything in the repository has an access list.
    pub fn has_access_lists(&self) -> bool {
        self.moments.moment().xattr_names.iter().any(|name| name.starts_with(ACCESS_LISTS))
    }

    /// From now on the kernel enforces access lists.
    pub fn enforce_access_lists(&self) {
        self.enforces_lists.store(true, Ordering::Relaxed);
    }

    /// True if there are access lists that the kernel does not enforce because there were none at mount time.
    pub fn ignores_access_lists(&self) -> bool {
        !self.enforces_lists.load(Ordering::Relaxed) && self.has_access_lists()
    }

    /// The value of an extended attribute. If the name begins with `security.` or `system.` and nothing in the
    /// repository has it, the answer is "not supported": `ls` asks for such names for every file until it gets that
    /// answer.
    pub fn xattr(&self, number: u64, name: &[u8]) -> Result<Vec<u8>, OperationError> {
        self.moments.with(|view, moment| {
            if !moment.xattr_names.contains(name) {
                if name.starts_with(facts::PREFIX) {
                    return self.fact(view, moment, number, name);
                }
                let asked_of_all = name.starts_with(b"security.") || name.starts_with(b"system.");
                let is_needed = name.starts_with(ACCESS_LISTS) && self.enforces_lists.load(Ordering::Relaxed);
                return Err(if asked_of_all && !is_needed {
                    OperationError::NotSupported
                } else {
                    OperationError::NoAttribute
                });
            }
            self.with_meta(view, moment, number, |meta| {
                let found = meta.and_then(|meta| meta.xattrs.iter().find(|xattr| xattr.name == name));
                found.map(|xattr| xattr.value.clone()).ok_or(OperationError::NoAttribute)
            })
        })
    }

    fn fact(&self, view: &View, moment: &Moment, number: u64, name: &[u8]) -> Result<Vec<u8>, OperationError> {
        match Inode::decode(number).ok_or(OperationError::Stale)? {
            Inode::File(version) => {
                let seen = self.seen(view, version)?;
                let of = Of::File(&seen.entry, version, seen.path);
                if name == facts::CACHED {
                    return facts::cached(view, self.moments.reader(), &of);
                }
                facts::value(view, &moment.listing, &of, name)
            }
            Inode::Directory { path, .. } | Inode::Versions(path) | Inode::Deleted(path) => {
                facts::value(view, &moment.listing, &Of::Directory(path), name)
            }
            _ => Err(OperationError::NoAttribute),
        }
    }

    /// The names of all extended attributes, each terminated by a NUL. Without attributes the list is empty. It is
    /// never "not supported", not even if nothing in the repository has any, because getfattr takes that for an error.
    pub fn xattr_names(&self, number: u64) -> Result<Vec<u8>, OperationError> {
        self.moments.with(|view, moment| {
            self.with_meta(view, moment, number, |meta| {
                let mut names = Vec::new();
                for xattr in meta.map(|meta| meta.xattrs.as_slice()).unwrap_or_default() {
                    names.extend_from_slice(&xattr.name);
                    names.push(0);
                }
                Ok(names)
            })
        })
    }
}
