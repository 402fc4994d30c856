//! Everything needed to open a store in a bucket: keys, a clock and certificates. This library looks for none of them
//! itself.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use zeroize::Zeroizing;

use crate::error::Result;

/// The keys that requests are signed with.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Keys {
    /// The name of the key, not secret.
    pub access_key: String,
    /// The secret.
    pub secret_key: Zeroizing<String>,
    /// The token that belongs to temporary keys.
    pub session_token: Option<Zeroizing<String>>,
    /// When temporary keys expire.
    pub expires: Option<SystemTime>,
}

impl fmt::Debug for S3Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Keys")
            .field("access_key", &self.access_key)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// The source of keys: called at the beginning, and again whenever its last keys are about to expire.
pub type KeySource = Arc<dyn Fn() -> Result<S3Keys> + Send + Sync>;

/// Everything needed to open a store in a bucket.
#[derive(Clone)]
pub struct S3Access {
    /// Keys.
    pub keys: KeySource,
    /// The region, if the address names none.
    pub region: Option<String>,
    /// The service, if the address names none.
    pub endpoint: Option<String>,
    /// Trusted certificates in PEM, in place of the built-in ones.
    pub ca_pem: Option<Vec<u8>>,
    /// The proxy that the service is reached through.
    pub proxy: Option<String>,
    /// The clock, because signatures contain the time.
    pub now: fn() -> SystemTime,
}
