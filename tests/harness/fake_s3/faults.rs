//! The requests and the faults of the fake S3 server, and the groups of faults that tests share.

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// Reads an object, or a part of it.
    Get,
    /// Reads the metadata of an object.
    Head,
    /// Makes an object.
    Put,
    /// Reads a page of a list.
    List,
    /// Removes an object.
    Delete,
    /// Begins an upload in parts.
    Begin,
    /// Sends a part; `#` and its number follow the key.
    Part,
    /// Puts the parts together.
    Complete,
    /// Discards an upload.
    Abort,
    /// Reads a page of the unfinished uploads.
    Uploads,
}

/// A way in which the server misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This status with an error of this code, or with an empty body if the code is empty.
    Status(u16, &'static str),
    /// 200 and a web page.
    Html,
    /// 200 and an empty body.
    Nothing,
    /// 200 and the XML of an error.
    ErrorWith200,
    /// The request is carried out, and never answered.
    Silence,
    /// The request is neither carried out nor answered.
    SilenceBefore,
    /// Half of the request is read, and then no more.
    SilenceWithin,
    /// Half of the answer is sent, and then no more.
    StallInBody,
    /// The connection is closed before the request is carried out.
    ResetBefore,
    /// The connection is closed while the request is still coming.
    ResetWithin,
    /// The request is carried out, and the connection closed instead of an answer.
    ResetAfter,
    /// Half of the body is sent, and the connection closed.
    ShortBody,
    /// Half of the body is sent in a chunk, and the connection closed.
    ShortChunked,
    /// The whole object is sent, though a part was asked for.
    RangeIgnored,
    /// Another part of the same length is sent.
    WrongRange,
    /// The ETag is missing.
    NoEtag,
    /// 301: the bucket is elsewhere.
    Redirect,
    /// An answer without an end, slower than a byte a second.
    Trickle,
    /// Header lines without an end.
    EndlessHeader,
    /// A list says that it continues, but not how to get the rest.
    TruncatedWithoutToken,
    /// The same page comes with the same token again and again.
    SamePage,
    /// Pages without end, each with another token and other names.
    EndlessPages,
    /// Every name twice.
    Duplicates,
    /// Names in the wrong order.
    Unsorted,
    /// The list lacks its first object and claims to be complete.
    Missing,
    /// The list is empty.
    Empty,
    /// The list shows only the keys given to `remember_list`, as if new objects appeared late.
    Lag,
    /// The list shows a volume and a marker that no longer exist.
    Ghosts,
    /// The request is carried out after the client has given up and repeated it.
    Late,
    /// The request is carried out twice, and the second answer is sent.
    Twice,
}

impl Fault {
    /// Whether only a stall timer can end it; tests should set a short one.
    pub fn is_silence(self) -> bool {
        use Fault::Late;
        use Fault::Silence;
        use Fault::SilenceBefore;
        use Fault::SilenceWithin;
        use Fault::StallInBody;
        use Fault::Trickle;
        matches!(self, Silence | SilenceBefore | SilenceWithin | StallInBody | Trickle | Late)
    }
}

/// The server refuses: a retry will not help.
pub const REFUSALS: &[Fault] =
    &[Fault::Status(403, "AccessDenied"), Fault::Status(404, ""), Fault::Status(404, "NoSuchBucket"), Fault::Redirect];

/// The server fails, is overloaded, is another one, or falls silent: a retry may help.
pub const FAILURES: &[Fault] = &[
    Fault::Status(500, "InternalError"),
    Fault::Status(503, "SlowDown"),
    Fault::Html,
    Fault::Nothing,
    Fault::ErrorWith200,
    Fault::Silence,
    Fault::ResetBefore,
    Fault::ResetAfter,
];

/// The answer begins well and breaks off.
pub const BROKEN_BODIES: &[Fault] = &[Fault::StallInBody, Fault::ShortBody, Fault::ShortChunked];

/// The answer never ends.
pub const ENDLESS_ANSWERS: &[Fault] = &[Fault::Trickle, Fault::EndlessHeader];

/// The part of an object is not the one that was asked for.
pub const BROKEN_RANGES: &[Fault] = &[Fault::RangeIgnored, Fault::WrongRange];

/// The list contradicts itself.
pub const BROKEN_LISTS: &[Fault] = &[Fault::TruncatedWithoutToken, Fault::SamePage, Fault::Duplicates, Fault::Unsorted];
