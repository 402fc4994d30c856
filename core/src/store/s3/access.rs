//! What a store in a bucket is opened with: keys, a clock and certificates. This library looks for none of them itself.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use zeroize::Zeroizing;

use crate::error::Result;

/// The keys that requests are signed with.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Keys {
    /// Which key; no secret.
    pub access_key: String,
    /// The key.
    pub secret_key: Zeroizing<String>,
    /// What temporary keys come with.
    pub session_token: Option<Zeroizing<String>>,
    /// When temporary keys end.
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

/// Where keys come from: asked once at the beginning, and again whenever those it gave are about to end.
pub type KeySource = Arc<dyn Fn() -> Result<S3Keys> + Send + Sync>;

/// What a store in a bucket is opened with.
#[derive(Clone)]
pub struct S3Access {
    /// Keys.
    pub keys: KeySource,
    /// The region, if the address names none.
    pub region: Option<String>,
    /// The service, if the address names none.
    pub endpoint: Option<String>,
    /// Certificates in PEM that the service's own must lead to, instead of those that are built in.
    pub ca_pem: Option<Vec<u8>>,
    /// The proxy that the service is reached through.
    pub proxy: Option<String>,
    /// The clock: a signature says when it was made.
    pub now: fn() -> SystemTime,
}
