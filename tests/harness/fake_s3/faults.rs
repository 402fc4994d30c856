//! What the fake S3 server is asked, and what it can do wrong.

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// An object, or a part of it.
    Get,
    /// What is known of an object.
    Head,
    /// To make an object.
    Put,
    /// A page of a list.
    List,
    /// To remove an object.
    Delete,
    /// To begin an upload in parts.
    Begin,
    /// To take in a part; `#` and its number follow the key.
    Part,
    /// To put the parts together.
    Complete,
    /// To forget an upload.
    Abort,
    /// A page of the uploads that have not ended.
    Uploads,
}

/// What it does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This status, with an error of this code; an empty code is an empty body.
    Status(u16, &'static str),
    /// 200 and a web page.
    Html,
    /// 200 and nothing.
    Nothing,
    /// 200 and an error's XML.
    ErrorWith200,
    /// No answer, for as long as the client holds on.
    Silence,
    /// No answer, and nothing is done.
    SilenceBefore,
    /// Half of the request is taken, and then no more of it.
    SilenceWithin,
    /// Half of the answer, and then nothing more.
    StallInBody,
    /// The connection is closed before anything is done.
    ResetBefore,
    /// The connection is closed while the request is still coming.
    ResetWithin,
    /// It is done, and the connection is closed instead of an answer.
    ResetAfter,
    /// Half of the body, and the connection is closed.
    ShortBody,
    /// Half of the body in a chunk, and the connection is closed.
    ShortChunked,
    /// The whole object, though a part was asked for.
    RangeIgnored,
    /// Another part of the same length.
    WrongRange,
    /// The ETag is missing.
    NoEtag,
    /// Another object has the bytes: 301.
    Redirect,
    /// An answer without an end, slower than a byte a second.
    Trickle,
    /// Header lines without an end.
    EndlessHeader,
    /// A list that says that there is more, and not how to get it.
    TruncatedWithoutToken,
    /// The same page with the same token again and again.
    SamePage,
    /// Pages without end, each with another token and other names.
    EndlessPages,
    /// Every name twice.
    Duplicates,
    /// Names in the wrong order.
    Unsorted,
    /// The list without the first of its objects, as if it were all.
    Missing,
    /// A list of nothing.
    Empty,
    /// Only what `remember_list` was told: new objects come late into the list.
    Lag,
    /// A list with a volume and a marker in it that are not there any more.
    Ghosts,
    /// No answer; it is done when the client has given up and asked again.
    Late,
    /// It is done twice, and the second answer is given.
    Twice,
}

impl Fault {
    /// Whether only a stall timer finds it out: a test with it should have a short one.
    pub fn is_silence(self) -> bool {
        use Fault::{Late, Silence, SilenceBefore, SilenceWithin, StallInBody, Trickle};
        matches!(self, Silence | SilenceBefore | SilenceWithin | StallInBody | Trickle | Late)
    }
}

/// The server refuses: it will not help to ask again.
pub const REFUSALS: &[Fault] =
    &[Fault::Status(403, "AccessDenied"), Fault::Status(404, ""), Fault::Status(404, "NoSuchBucket"), Fault::Redirect];

/// The server fails, is overloaded, is not the server, or falls silent.
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

/// The answer begins well and does not end as it should.
pub const BROKEN_BODIES: &[Fault] = &[Fault::StallInBody, Fault::ShortBody, Fault::ShortChunked];

/// An answer drags on.
pub const ENDLESS_ANSWERS: &[Fault] = &[Fault::Trickle, Fault::EndlessHeader];

/// A part of an object is not the part that was asked for.
pub const BROKEN_RANGES: &[Fault] = &[Fault::RangeIgnored, Fault::WrongRange];

/// A list is not a list of what is there, and shows it.
pub const BROKEN_LISTS: &[Fault] = &[Fault::TruncatedWithoutToken, Fault::SamePage, Fault::Duplicates, Fault::Unsorted];
