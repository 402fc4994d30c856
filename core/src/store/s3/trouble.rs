//! Unexpected answers of an S3 service, and what a person can do about them.
//!
//! The kind of the [`io::Error`] says how to go on (see `store::retry`); its text is for people; a [`Trouble`] inside
//! identifies trouble that has its own remedy.

use std::io;
use std::time::Duration;
use std::time::SystemTime;

use serde::Deserialize;

/// A trouble that has its own remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// No more room.
    #[error("the bucket is full ({code}): raise its quota or add space")]
    Full {
        /// The service's word.
        code: String,
    },
    /// Wrong keys, or keys without the needed permissions.
    #[error(
        "access is denied ({answer}): check the keys, and that they may read, write, list and delete in this bucket"
    )]
    Denied {
        /// The service's words.
        answer: String,
    },
    /// The bucket is elsewhere.
    #[error("the bucket is in the region {region}: add region={region} to the address, or set AWS_REGION")]
    WrongRegion {
        /// Where it is.
        region: String,
    },
    /// The service redirects us without naming a region.
    #[error(
        "the service redirects elsewhere ({answer}), which is not followed: check endpoint= and region= of the address"
    )]
    Redirected {
        /// The service's words.
        answer: String,
    },
    /// The signature's time is too far from the service's.
    #[error("this machine's clock is {difference} from that of the service: set it right")]
    ClockSkew {
        /// How far off, if known.
        difference: String,
    },
    /// The bucket is not there.
    #[error("the bucket does not exist: create it with your provider's tools, or check the address")]
    NoBucket,
    /// The service does not know the upload any more.
    #[error("the service has forgotten an upload in parts, which starts anew")]
    NoUpload,
    /// The service's certificate is not trusted.
    #[error("the service's certificate is not trusted: {cause}: for a private one, give its issuer's file with ca=")]
    Certificate {
        /// Why.
        cause: String,
    },
    /// There is no such host.
    #[error("the service's host name is unknown: check endpoint= of the address ({cause})")]
    NoHost {
        /// What the resolver says.
        cause: String,
    },
}

/// The body of an error answer.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ErrorBody {
    code: String,
    message: String,
    region: Option<String>,
}

/// An error answer.
pub(super) struct Refusal<'a> {
    pub status: u16,
    pub body: &'a [u8],
    /// `x-amz-bucket-region`
    pub region: Option<&'a str>,
    /// `Date`
    pub date: Option<&'a str>,
}

impl Trouble {
    /// The error for a refusal.
    pub(super) fn of_refusal(refusal: &Refusal<'_>, now: SystemTime) -> io::Error {
        let ErrorBody { code, message, region } = parse_error(refusal.body);
        let region = region.as_deref().or(refusal.region).filter(|region| super::address::is_region(region));
        let answer = match (code.as_str(), message.as_str()) {
            ("", _) => format!("status {}, without an S3 error code", refusal.status),
            (code, "") => format!("status {}, {code}", refusal.status),
            (code, message) => format!("status {}, {code}: {message}", refusal.status),
        };
        use io::ErrorKind::*;
        let (kind, trouble) = match (refusal.status, code.as_str()) {
            (404, "NoSuchKey") => return NotFound.into(),
            (_, "NoSuchBucket") => (Other, Trouble::NoBucket),
            (_, "NoSuchUpload") => (ResourceBusy, Trouble::NoUpload),
            (507, _)
            | (
                _,
                "QuotaExceeded"
                | "QuotaExceededException"
                | "InsufficientStorage"
                | "InsufficientCapacity"
                | "XMinioStorageFull"
                | "BucketQuotaExceeded"
                | "StorageQuotaExceeded"
                | "TooMuchData"
                | "XMinioAdminBucketQuotaExceeded",
            ) => (StorageFull, Trouble::Full { code: if code.is_empty() { "507".into() } else { code } }),
            (_, "RequestTimeTooSkewed" | "RequestExpired" | "RequestNotYetValid") => {
                (Other, Trouble::ClockSkew { difference: difference(refusal.date, now) })
            }
            (300..=399, _)
            | (_, "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException") => {
                match region {
                    Some(region) => (Other, Trouble::WrongRegion { region: region.to_owned() }),
                    None => (Other, Trouble::Redirected { answer }),
                }
            }
            (416, _) => {
                let cause = "the object ends before the requested bytes";
                return io::Error::new(UnexpectedEof, cause);
            }
            (408 | 409 | 425 | 429 | 500 | 502 | 503 | 504, _)
            | (_, "SlowDown" | "RequestTimeout" | "InternalError" | "ServiceUnavailable") => {
                return io::Error::new(ResourceBusy, format!("the service is busy ({answer})"));
            }
            (_, "XAmzContentSHA256Mismatch" | "BadDigest" | "IncompleteBody" | "InvalidDigest") => {
                return io::Error::new(InvalidData, format!("the bytes changed in transit ({answer})"));
            }
            (401 | 403, _) => (PermissionDenied, Trouble::Denied { answer }),
            _ => return io::Error::other(format!("the service refused ({answer})")),
        };
        io::Error::new(kind, trouble)
    }

    /// An answer that no S3 service gives: from a captive portal, a broken proxy, or an impostor.
    pub(super) fn nonsense(what: &str) -> io::Error {
        let cause = format!("{what}: this is not how an S3 service answers (is a proxy or portal in between?)");
        io::Error::new(io::ErrorKind::InvalidData, cause)
    }

    /// The error for a failure before any answer.
    pub(super) fn of_transport(error: ureq::Error) -> io::Error {
        use io::ErrorKind::*;
        match error {
            ureq::Error::Io(cause) => of_io(cause),
            ureq::Error::Timeout(what) => io::Error::new(TimedOut, format!("the service has stalled ({what})")),
            ureq::Error::HostNotFound => io::Error::new(Other, Trouble::NoHost { cause: "no address".into() }),
            ureq::Error::Rustls(rustls) => of_tls(&rustls.to_string()),
            ureq::Error::Tls(cause) => of_tls(cause),
            ureq::Error::Protocol(cause) => Trouble::nonsense(&format!("the answer is not HTTP ({cause})")),
            ureq::Error::LargeResponseHeader(..) => Trouble::nonsense("the answer's header is far too long"),
            ureq::Error::ConnectionFailed => ConnectionRefused.into(),
            other => io::Error::other(other.to_string()),
        }
    }

    /// The error for a failure while reading a body.
    pub(super) fn of_body(cause: io::Error) -> io::Error {
        match cause.get_ref().is_some_and(|inner| inner.is::<ureq::Error>()) {
            true => match cause.into_inner().map(|inner| inner.downcast::<ureq::Error>()) {
                Some(Ok(error)) => Trouble::of_transport(*error),
                _ => io::ErrorKind::ConnectionAborted.into(),
            },
            false => of_io(cause),
        }
    }

    /// The [`Trouble`] inside an error, if there is one.
    pub fn within(error: &crate::error::Error) -> Option<&Trouble> {
        match error {
            crate::error::Error::Store { source, .. } => source.get_ref()?.downcast_ref(),
            _ => None,
        }
    }
}

fn of_io(cause: io::Error) -> io::Error {
    let text = cause.to_string();
    match cause.kind() {
        // The connection ended in the middle of something.
        io::ErrorKind::UnexpectedEof | io::ErrorKind::NotConnected => {
            io::Error::new(io::ErrorKind::ConnectionAborted, "the connection ended early")
        }
        // TLS uses this kind for its own errors.
        io::ErrorKind::InvalidData if text.contains("certificate") => of_tls(&text),
        io::ErrorKind::InvalidInput => io::Error::new(io::ErrorKind::InvalidData, cause),
        // The resolver's errors have no kind: an unknown name stays unknown, an unreachable resolver comes back.
        _ if text.contains("failed to lookup") => match text.contains("Temporary failure") {
            true => io::Error::new(io::ErrorKind::HostUnreachable, cause),
            false => io::Error::other(Trouble::NoHost { cause: text }),
        },
        _ => cause,
    }
}

fn of_tls(cause: &str) -> io::Error {
    if cause.contains("certificate") || cause.contains("Certificate") || cause.contains("UnknownIssuer") {
        return io::Error::other(Trouble::Certificate { cause: cause.to_owned() });
    }
    io::Error::new(io::ErrorKind::InvalidData, format!("no secure connection: {cause}"))
}

/// Parses an error's XML; anything else gives an empty result.
fn parse_error(body: &[u8]) -> ErrorBody {
    let text = std::str::from_utf8(body).unwrap_or_default();
    let is_error = super::xml::root(text).as_deref() == Some("Error");
    let parsed = is_error.then(|| quick_xml::de::from_str::<ErrorBody>(text).ok()).flatten().unwrap_or_default();
    let plain = |text: String| text.chars().take(200).collect::<String>().escape_debug().to_string();
    ErrorBody { code: plain(parsed.code), message: plain(parsed.message), region: parsed.region }
}

fn difference(date: Option<&str>, now: SystemTime) -> String {
    let there = date.and_then(parse_date).map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    match there.map(|there| (now.duration_since(there), there.duration_since(now))) {
        Some((Ok(ahead), _)) => format!("{} minutes ahead", ahead.as_secs() / 60),
        Some((_, Ok(behind))) => format!("{} minutes behind", behind.as_secs() / 60),
        _ => "too far".to_owned(),
    }
}

/// Reads `Tue, 24 Nov 2026 21:30:00 GMT` as seconds since 1970.
fn parse_date(text: &str) -> Option<u64> {
    let mut words = text.split_whitespace().skip(1);
    let (day, month, year, clock) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let month = "JanFebMarAprMayJunJulAugSepOctNovDec".find(month).filter(|_| month.len() == 3)? / 3 + 1;
    let month = time::Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date = time::Date::from_calendar_date(year.parse().ok()?, month, day.parse().ok()?).ok()?;
    let clock: Vec<u8> = clock.split(':').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [hour, minute, second] = clock.as_slice() else { return None };
    let date = date.with_hms(*hour, *minute, *second).ok()?.assume_utc();
    u64::try_from(date.unix_timestamp()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, body: &str) -> io::Error {
        let date = Some("Tue, 24 Nov 2026 21:30:00 GMT");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_555_800 + 27 * 60);
        Trouble::of_refusal(&Refusal { status, body: body.as_bytes(), region: None, date }, now)
    }

    fn error(code: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?>\n\
             <Error><Code>{code}</Code><Message>because</Message><Resource>/x</Resource></Error>"
        )
    }

    #[test]
    fn each_trouble_that_has_a_remedy_is_told_from_the_others() {
        let trouble = |status, body: &str| {
            let error = refused(status, body);
            let trouble = error.get_ref().and_then(|inner| inner.downcast_ref::<Trouble>()).cloned();
            (error.kind(), trouble)
        };
        let full = Trouble::Full { code: "QuotaExceeded".into() };
        assert_eq!(trouble(403, &error("QuotaExceeded")), (io::ErrorKind::StorageFull, Some(full)));
        let (kind, denied) = trouble(403, &error("AccessDenied"));
        assert!(
            kind == io::ErrorKind::PermissionDenied && matches!(denied, Some(Trouble::Denied { .. })),
            "{denied:?}"
        );
        let region = "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-3</Region></Error>";
        assert_eq!(trouble(400, region).1, Some(Trouble::WrongRegion { region: "eu-west-3".into() }));
        assert!(matches!(trouble(301, "").1, Some(Trouble::Redirected { .. })));
        let skew = Trouble::ClockSkew { difference: "27 minutes ahead".into() };
        assert_eq!(trouble(403, &error("RequestTimeTooSkewed")).1, Some(skew));
        assert_eq!(trouble(404, &error("NoSuchBucket")), (io::ErrorKind::Other, Some(Trouble::NoBucket)));
    }

    #[test]
    fn absence_is_said_by_the_service_and_not_by_any_404() {
        assert_eq!(refused(404, &error("NoSuchKey")).kind(), io::ErrorKind::NotFound);
        for body in ["", "<html><body>404 Not Found</body></html>", &error("NoSuchBucket"), "<Error><Code>NoSuchKey"] {
            assert_ne!(refused(404, body).kind(), io::ErrorKind::NotFound, "{body}");
        }
    }

    #[test]
    fn what_may_pass_is_told_from_what_stays() {
        for (status, code) in
            [(503, "SlowDown"), (500, "InternalError"), (400, "RequestTimeout"), (409, "OperationAborted")]
        {
            assert_eq!(refused(status, &error(code)).kind(), io::ErrorKind::ResourceBusy, "{code}");
        }
        assert_eq!(refused(400, &error("BadDigest")).kind(), io::ErrorKind::InvalidData);
        assert_eq!(refused(400, &error("InvalidArgument")).kind(), io::ErrorKind::Other);
    }

    #[test]
    fn a_hostile_message_does_not_reach_the_terminal_as_it_is() {
        let hostile = format!("<Error><Code>X</Code><Message>&#27;[2J{}</Message></Error>", "a".repeat(10_000));
        let text = refused(400, &hostile).to_string();
        assert!(!text.contains('\u{1b}') && text.len() < 500, "{text}");
    }
}
