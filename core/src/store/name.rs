//! Names of objects: narrow on purpose, so that each is at once a file name that needs no quoting on any filesystem
//! and a key that needs no escaping in any URL, and so that no name leads out of the store's directory.

use std::fmt;

/// Longest name of an object, in bytes.
const NAME_BYTES_MAX: usize = 200;

/// The one name with capitals: it is for people, who look for such a file.
const README: &str = "README-RECOVER.txt";

/// The name of an object: `/`-separated segments of `a-z`, `0-9`, `.`, `_` and `-`, none of them empty or beginning
/// with a dot, 200 bytes at most; or `README-RECOVER.txt`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(String);

impl ObjectName {
    /// From its text, or `None` if it is not a name.
    pub fn new(text: &str) -> Option<ObjectName> {
        let valid = text.len() <= NAME_BYTES_MAX && text.split('/').all(is_segment);
        (valid || text == README).then(|| ObjectName(text.to_owned()))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The directory (empty at the top) and the last segment.
    pub(crate) fn split(&self) -> (&str, &str) {
        self.0.rsplit_once('/').unwrap_or(("", &self.0))
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_segment(segment: &str) -> bool {
    let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    !segment.is_empty() && !segment.starts_with('.') && segment.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_or_need_quoting_are_none() {
        let long = "a".repeat(200);
        for good in ["bygone.json", "data/00/ab-c_d.e", "a", "a../b..c", "-", "README-RECOVER.txt", &long] {
            assert_eq!(ObjectName::new(good).map(|name| name.to_string()).as_deref(), Some(good));
        }
        let too_long = "a".repeat(201);
        let bad = [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "a/..",
            "../a",
            "a/./b",
            ".a",
            "a/.tmp",
            "A",
            "a/B",
            "a b",
            "a\\b",
            "a\0",
            "a\n",
            "\u{e4}",
            "lost+found",
            "a/README-RECOVER.txt",
            "README-RECOVER.TXT",
            "a:b",
            "a%2fb",
            &too_long,
        ];
        for text in bad {
            assert_eq!(ObjectName::new(text), None, "{text:?} is no name");
        }
    }

    #[test]
    fn names_split_at_their_last_slash() {
        let split = |text| ObjectName::new(text).map(|name| (name.split().0.to_owned(), name.split().1.to_owned()));
        assert_eq!(split("a/b/c"), Some(("a/b".into(), "c".into())));
        assert_eq!(split("c"), Some((String::new(), "c".into())));
    }
}
