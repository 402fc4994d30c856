//! How people name a store.
//!
//! A path is a directory on this machine. Text that starts with `word:` names another kind of store, so an address with
//! a misspelt kind is refused instead of becoming a directory of that name; `./word:` says that a directory is meant.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::error::Result;
use crate::store::Store;
use crate::store::link::Link;
use crate::store::local::LocalStore;
use crate::store::rclone::RcloneStore;
use crate::store::retry::Clock;
use crate::store::retry::RetryStore;
use crate::store::s3::S3Access;
use crate::store::s3::S3Address;
use crate::store::s3::S3Store;
use crate::watch::Watch;

/// The kind of store, and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A directory on this machine.
    Local(PathBuf),
    /// A place known to the rclone program, in its notation: `remote:path`.
    Rclone(String),
    /// A bucket.
    S3(S3Address),
}

/// Everything needed to open a store that this library does not look for by itself.
pub struct Surroundings<'a> {
    /// The way to the store.
    pub link: &'a Arc<Link>,
    /// Gets reports of passing trouble, and may stop the work.
    pub watch: &'a Arc<Watch>,
    /// How long an outage may last.
    pub patience: Duration,
    /// Keys for a bucket.
    pub s3_access: &'a dyn Fn(&S3Address) -> Result<S3Access>,
}

impl Address {
    /// Opens the store at this address. For a bucket, this does not check yet whether it holds a repository.
    pub fn open(&self, surroundings: &Surroundings<'_>) -> Result<Arc<dyn Store>> {
        let link = Arc::clone(surroundings.link);
        match self {
            Address::Local(path) => Ok(Arc::new(LocalStore::open(path)?.with_link(link))),
            Address::Rclone(place) => Ok(patient(RcloneStore::open(place)?.with_link(link), surroundings)),
            Address::S3(address) => s3(address, surroundings),
        }
    }

    /// Opens the store of a copy that is to be made or completed here.
    pub fn begin(&self, surroundings: &Surroundings<'_>) -> Result<Arc<dyn Store>> {
        let link = Arc::clone(surroundings.link);
        match self {
            Address::Local(path) => Ok(Arc::new(LocalStore::begin(path)?.with_link(link))),
            Address::Rclone(place) => Ok(Arc::new(RcloneStore::begin(place)?.with_link(link))),
            Address::S3(address) => s3(address, surroundings),
        }
    }

    /// Opens the store at this address even if it lacks the description.
    pub fn open_incomplete(&self, surroundings: &Surroundings<'_>) -> Result<Arc<dyn Store>> {
        let link = Arc::clone(surroundings.link);
        match self {
            Address::Local(path) => Ok(Arc::new(LocalStore::open_incomplete(path)?.with_link(link))),
            Address::Rclone(place) => Ok(Arc::new(RcloneStore::open_incomplete(place)?.with_link(link))),
            Address::S3(address) => s3(address, surroundings),
        }
    }

    /// Makes a new, empty store here. Buckets are not made: who may make one, and how, is up to the provider.
    pub fn create(&self, surroundings: &Surroundings<'_>) -> Result<Arc<dyn Store>> {
        let link = Arc::clone(surroundings.link);
        match self {
            Address::Local(path) => Ok(Arc::new(LocalStore::create(path)?.with_link(link))),
            Address::Rclone(place) => Ok(patient(RcloneStore::create(place)?.with_link(link), surroundings)),
            Address::S3(address) => s3(address, surroundings),
        }
    }
}

fn s3(address: &S3Address, surroundings: &Surroundings<'_>) -> Result<Arc<dyn Store>> {
    let Surroundings { link, watch, s3_access, .. } = surroundings;
    Ok(patient(S3Store::new(address, s3_access(address)?, Arc::clone(link), watch)?, surroundings))
}

/// The same store, with patience for outages.
fn patient(store: impl Store + 'static, surroundings: &Surroundings<'_>) -> Arc<dyn Store> {
    let Surroundings { watch, patience, .. } = surroundings;
    Arc::new(RetryStore::new(Arc::new(store), *patience, Arc::clone(watch), Clock::real(watch)))
}

/// Parses an address: a path, `file:PATH`, `file:///PATH`, `rclone:REMOTE:PATH`, or one of [`S3Address`].
pub fn parse_address(text: &str) -> Result<Address> {
    let path = match kind(text) {
        None => text,
        Some(("file", rest)) => match rest.strip_prefix("//") {
            None => rest,
            Some(path) if path.starts_with('/') => path,
            Some(_) => {
                let what = format!("{text}: a file: address has no host: write file:PATH or file:///PATH");
                return Err(Error::Invalid { what });
            }
        },
        Some(("s3", rest)) => return Ok(Address::S3(S3Address::parse(rest)?)),
        Some(("rclone", place)) => return rclone(text, place),
        Some((kind, _)) => {
            let what = format!("{text}: there is no kind of store called {kind}: for a directory, write ./{text}");
            return Err(Error::Invalid { what });
        }
    };
    if path.is_empty() || path.contains('\0') {
        return Err(Error::Invalid { what: format!("{text:?} does not name a store: give the path of a directory") });
    }
    Ok(Address::Local(PathBuf::from(path)))
}

/// A relative path is refused: it would mean another place once a mount runs in the background, and it is more likely a
/// remote without its colon.
fn rclone(text: &str, place: &str) -> Result<Address> {
    if (place.starts_with('/') || place.contains(':')) && !place.contains('\0') {
        return Ok(Address::Rclone(place.to_owned()));
    }
    let what = format!("{text} names no remote of rclone: write rclone:REMOTE:PATH, `rclone listremotes` shows them");
    Err(Error::Invalid { what })
}

/// The word before the first colon and what follows it, if `text` begins with such a word.
fn kind(text: &str) -> Option<(&str, &str)> {
    let (word, rest) = text.split_once(':')?;
    let plain = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'_'));
    (plain && word.starts_with(|first: char| first.is_ascii_alphabetic())).then_some((word, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_or_a_file_address_is_a_directory() {
        let cases = [
            ("/a/b", "/a/b"),
            ("a", "a"),
            ("./s3:x", "./s3:x"),
            ("/x/s3:y", "/x/s3:y"),
            ("a b:c", "a b:c"),
            ("file:/a", "/a"),
            ("file:a/b", "a/b"),
            ("file:///a:b", "/a:b"),
        ];
        for (text, path) in cases {
            assert_eq!(parse_address(text).ok(), Some(Address::Local(path.into())), "{text}");
        }
    }

    #[test]
    fn what_follows_rclone_is_for_rclone_to_read() {
        for place in ["remote:", "remote:a/b c", ":memory:x", ":sftp,host=h:x", "/a/b", "crypt:"] {
            let address = parse_address(&format!("rclone:{place}"));
            assert_eq!(address.ok(), Some(Address::Rclone(place.into())), "{place}");
        }
        for text in ["rclone:", "rclone:remote", "rclone:a/b", "rclone:r:\0"] {
            let error = parse_address(text).unwrap_err();
            assert!(matches!(&error, Error::Invalid { what } if what.contains("REMOTE:PATH")), "{text:?}: {error}");
        }
    }

    #[test]
    fn other_kinds_are_refused_and_never_taken_for_a_directory() {
        assert!(matches!(parse_address("s3://bucket/x"), Ok(Address::S3(address)) if address.prefix == "x/"));
        for text in
            ["", "s3:x", "S3://bucket/x", "file:", "file://host/a", "sftp:host:/a", "http://x", "FILE:x", "a\0b"]
        {
            assert!(matches!(parse_address(text), Err(Error::Invalid { .. })), "{text:?}");
        }
    }
}
