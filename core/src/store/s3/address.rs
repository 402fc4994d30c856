//! The address of a bucket: `s3://BUCKET/PREFIX?endpoint=URL&region=NAME&...`, or `s3:URL/BUCKET/PREFIX` as in restic.

use std::fmt;
use std::time::Duration;

use url::Url;

use crate::error::Error;
use crate::error::Result;

/// Longest prefix: keys have at most 1,024 bytes, and object names may take 200 of them.
const PREFIX_BYTES_MAX: usize = 700;
/// An idle connection is given up after this time.
const STALL_DEFAULT: Duration = Duration::from_secs(60);
/// Size of the parts of objects longer than two parts: the smallest size that all services accept.
const PART_BYTES_DEFAULT: u64 = 5 << 20;
/// A service accepts 10,000 parts, and no volume is longer than 256 MiB.
const PART_BYTES_MIN: u64 = 64 << 10;
const PART_BYTES_MAX: u64 = 256 << 20;

/// How the bucket is named in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// `https://endpoint/bucket/key`
    Path,
    /// `https://bucket.endpoint/key`
    Host,
}

/// Where the objects of a repository are in an S3 service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Address {
    /// The bucket.
    pub bucket: String,
    /// The beginning of every object's key: empty, or ending with a slash.
    pub prefix: String,
    /// The service: scheme, host and port. `None` means Amazon's service in the region.
    pub endpoint: Option<String>,
    /// The region, if the address has one.
    pub region: Option<String>,
    /// How the bucket is named, if the address specifies it.
    pub style: Option<Style>,
    /// The profile of the AWS files that holds the credentials, if the address has one.
    pub profile: Option<String>,
    /// A file of trusted certificates, if the address has one.
    pub ca: Option<String>,
    /// An idle connection is given up after this time.
    pub stall: Duration,
    /// Size of the parts of objects longer than two parts; 0 means never in parts.
    pub part_bytes: u64,
}

impl S3Address {
    /// Parses what follows `s3:`.
    pub fn parse(text: &str) -> Result<S3Address> {
        let whole = format!("s3:{text}");
        let refuse = |why: &str| Error::Invalid { what: format!("{}: {why}", without_secrets(&whole)) };
        let (place, query) = text.split_once('?').unwrap_or((text, ""));
        let (endpoint, place) = match place.strip_prefix("//") {
            Some(place) => (None, place),
            None if place.starts_with("http://") || place.starts_with("https://") => {
                let (scheme, rest) = place.split_once("://").unwrap_or_default();
                let (host, place) = rest.split_once('/').ok_or_else(|| refuse("the bucket is missing"))?;
                (Some(format!("{scheme}://{host}")), place)
            }
            None => return Err(refuse("write s3://BUCKET/PREFIX?endpoint=URL&region=NAME")),
        };
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        if !is_bucket(bucket) {
            return Err(refuse(
                "a bucket's name has 3 to 63 letters, digits, dots and hyphens; keys and tokens come from \
                               the AWS environment variables or files, never from the address",
            ));
        }
        let prefix = prefix.trim_matches('/');
        if prefix.len() > PREFIX_BYTES_MAX || !prefix.split('/').all(|segment| is_segment(segment) || prefix.is_empty())
        {
            return Err(refuse(
                "the prefix may contain letters, digits and -_.=@, in segments other than the empty one, . and ..",
            ));
        }
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let mut address = S3Address {
            bucket: bucket.to_owned(),
            prefix,
            endpoint: None,
            region: None,
            style: None,
            profile: None,
            ca: None,
            stall: STALL_DEFAULT,
            part_bytes: PART_BYTES_DEFAULT,
        };
        if let Some(endpoint) = endpoint {
            address.endpoint =
                Some(parse_endpoint(&endpoint).ok_or_else(|| refuse("the URL of the service is not valid"))?);
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            address.set(name, value).map_err(|why| refuse(&why))?;
        }
        Ok(address)
    }

    fn set(&mut self, name: &str, value: &str) -> std::result::Result<(), String> {
        if value.is_empty() {
            return Err(format!("{name} has no value"));
        }
        match name {
            "endpoint" => {
                let why = "endpoint= needs http://HOST or https://HOST, optionally with a port, and nothing else";
                self.endpoint = Some(parse_endpoint(value).ok_or(why)?);
            }
            "region" if is_region(value) => self.region = Some(value.to_owned()),
            "region" => return Err("region= needs the name of a region, such as eu-central-1".into()),
            "style" => {
                self.style = match value {
                    "path" => Some(Style::Path),
                    "host" => Some(Style::Host),
                    _ => return Err("style= must be path or host".into()),
                };
            }
            "profile" => self.profile = Some(value.to_owned()),
            "ca" => self.ca = Some(value.to_owned()),
            "stall" => {
                let seconds = value.strip_suffix('s').unwrap_or(value).parse().ok().filter(|n| (1..=3600).contains(n));
                self.stall = Duration::from_secs(seconds.ok_or("stall= needs a number of seconds from 1 to 3600")?);
            }
            "part" => {
                let why = "part= needs a size from 64k to 256M, or 0 to send every object whole";
                self.part_bytes = parse_part(value).ok_or(why)?;
            }
            _ => {
                let names = "endpoint, region, style, profile, ca, stall and part";
                return Err(format!("{name}= is not known: there are {names}"));
            }
        }
        Ok(())
    }

    /// The service's URL, without a slash at its end, in this region.
    pub(super) fn service(&self, region: &str) -> String {
        let china = if region.starts_with("cn-") { ".cn" } else { "" };
        self.endpoint.clone().unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com{china}"))
    }

    /// How the bucket is named. Amazon wants it in the host name; a private service seldom has a host name for each
    /// bucket. No certificate matches a bucket with a dot in its name.
    pub(super) fn style(&self) -> Style {
        let usual = if self.endpoint.is_some() || self.bucket.contains('.') { Style::Path } else { Style::Host };
        self.style.unwrap_or(usual)
    }
}

impl fmt::Display for S3Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.prefix.trim_end_matches('/'))?;
        let style = self.style.map(|style| match style {
            Style::Path => "path".to_owned(),
            Style::Host => "host".to_owned(),
        });
        let stall = (self.stall != STALL_DEFAULT).then(|| format!("{}s", self.stall.as_secs()));
        let part = (self.part_bytes != PART_BYTES_DEFAULT).then(|| match self.part_bytes {
            0 => "0".to_owned(),
            bytes if bytes % (1 << 20) == 0 => format!("{}M", bytes >> 20),
            bytes => format!("{}k", bytes >> 10),
        });
        let mut mark = '?';
        for (name, value) in [
            ("endpoint", &self.endpoint),
            ("region", &self.region),
            ("style", &style),
            ("profile", &self.profile),
            ("ca", &self.ca),
            ("stall", &stall),
            ("part", &part),
        ] {
            if let Some(value) = value {
                write!(f, "{mark}{name}={value}")?;
                mark = '&';
            }
        }
        Ok(())
    }
}

/// Scheme, host and port of a URL that has nothing else.
fn parse_endpoint(text: &str) -> Option<String> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let open = url.username().is_empty() && url.password().is_none();
    (bare && open && url.has_host()).then(|| url.as_str().trim_end_matches('/').to_owned())
}

/// `5M`, `256k` or `0`.
fn parse_part(text: &str) -> Option<u64> {
    let (number, unit) = match (text.strip_suffix('k'), text.strip_suffix('M')) {
        (Some(number), _) => (number, 1 << 10),
        (None, Some(number)) => (number, 1 << 20),
        (None, None) => return (text == "0").then_some(0),
    };
    let bytes = number.parse::<u64>().ok()?.checked_mul(unit)?;
    (PART_BYTES_MIN..=PART_BYTES_MAX).contains(&bytes).then_some(bytes)
}

/// Text before an `@` may be a key.
fn without_secrets(text: &str) -> String {
    match text.split_once('?').map_or(text, |(place, _)| place).rsplit_once('@') {
        Some((_, after)) => format!("s3://...@{after}"),
        None => text.to_owned(),
    }
}

fn is_bucket(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    (3..=63).contains(&text.len()) && text.bytes().all(plain) && !text.contains("..")
}

/// A plus is excluded: services that escape their lists wrongly would make it look like a space.
fn is_segment(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'=' | b'@');
    !text.is_empty() && text.bytes().all(plain) && text != "." && text != ".."
}

/// Whether this may be the name of a region.
pub(super) fn is_region(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    (1..=64).contains(&text.len()) && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_where_and_is_written_as_it_was_read() {
        let plain = S3Address::parse("//bucket").unwrap();
        assert_eq!((plain.bucket.as_str(), plain.prefix.as_str(), plain.endpoint.as_deref()), ("bucket", "", None));
        assert_eq!(plain.to_string(), "s3://bucket/");
        let text = "s3://my.bucket/a/b-c?endpoint=https://s3.example.org:9000&region=eu-west-3&style=host&profile=p&\
                    ca=/etc/x.pem&stall=5s&part=8M";
        let full = S3Address::parse(text.strip_prefix("s3:").unwrap()).unwrap();
        assert_eq!(full.prefix, "a/b-c/");
        assert_eq!((full.stall, full.part_bytes), (Duration::from_secs(5), 8 << 20));
        for part in ["part=0", "part=100k"] {
            assert_eq!(
                S3Address::parse(&format!("//bucket/?{part}")).unwrap().to_string(),
                format!("s3://bucket/?{part}")
            );
        }
        assert_eq!(full.to_string(), text);
        let restic = S3Address::parse("http://127.0.0.1:9000/bucket/a/").unwrap();
        assert_eq!(restic.to_string(), "s3://bucket/a?endpoint=http://127.0.0.1:9000");
    }

    #[test]
    fn bucket_is_in_the_path_but_in_the_host_at_amazon() {
        let case = |text: &str| {
            let address = S3Address::parse(text).unwrap();
            (address.service("eu-west-3"), address.style())
        };
        assert_eq!(case("//bucket/x"), ("https://s3.eu-west-3.amazonaws.com".into(), Style::Host));
        assert_eq!(case("//bu.cket/x").1, Style::Path);
        assert_eq!(case("//bucket/x?endpoint=http://[::1]:80/"), ("http://[::1]".into(), Style::Path));
        assert_eq!(case("//bucket/x?endpoint=https://h&style=host").1, Style::Host);
    }

    #[test]
    fn what_is_no_address_is_refused_without_showing_a_key() {
        for bad in [
            "",
            "bucket",
            "//",
            "//ab",
            "//bucket//x//y",
            "//bucket/../x",
            "//bucket/a b",
            "//bucket/a+b",
            "//bucket?endpoint=",
            "//bucket?endpoint=ftp://x",
            "//bucket?endpoint=http://h/path",
            "//bucket?region=Frankfurt!",
            "//bucket?style=virtual",
            "//bucket?stall=0",
            "//bucket?part=1",
            "//bucket?part=63k",
            "//bucket?part=257M",
            "//bucket?part=99999999999999999999M",
            "//bucket?colour=blue",
            "http://host",
            "//bucket?endpoint=http://user:secret@h",
        ] {
            assert!(matches!(S3Address::parse(bad), Err(Error::Invalid { .. })), "{bad}");
        }
        let error = S3Address::parse("//AKIAKEY:secretsecret@bucket/x").unwrap_err().to_string();
        assert!(!error.contains("secretsecret") && error.contains("bucket"), "{error}");
    }
}
