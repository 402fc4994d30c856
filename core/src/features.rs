//! Features by name: what a program must know to use a repository.
//!
//! A later bygone may store things that this one does not know. It then names the feature in the description of the
//! repository, or later in a commit, in one of three lists, and so decides what an older program still does: nothing at
//! all, reading, or everything. Names are compared as they are, and nothing is negotiated.

use std::collections::BTreeSet;

use crate::attributes::Attribute;
use crate::attributes::Attributes;
use crate::error::Error;
use crate::error::Result;
use crate::limits;
use crate::wire::DecodeError;
use crate::wire::Decoder;
use crate::wire::Encoder;

/// Tags of the attributes of commits that name features: those needed to read, those needed to write, the optional
/// ones.
const TAGS: [u64; 3] = [1, 2, 3];

/// The features that this program knows.
const KNOWN: &[&str] = &[];

/// The features of a repository, each list in ascending order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Features {
    /// A program that does not know one of these must not even read the repository.
    pub read: Vec<String>,
    /// A program that does not know one of these may read the repository but must not write to it.
    pub write: Vec<String>,
    /// These concern nobody but the programs that know them.
    pub optional: Vec<String>,
}

impl Features {
    /// True if no feature is named.
    pub fn is_empty(&self) -> bool {
        self.read.is_empty() && self.write.is_empty() && self.optional.is_empty()
    }

    /// Adds those of `others`. A name stays in the strictest of its lists.
    pub fn add(&mut self, others: &Features) {
        let lists = [(&mut self.read, &others.read), (&mut self.write, &others.write)];
        for (own, more) in lists.into_iter().chain([(&mut self.optional, &others.optional)]) {
            own.extend_from_slice(more);
            own.sort_unstable();
            own.dedup();
        }
        self.write.retain(|name| !self.read.contains(name));
        self.optional.retain(|name| !self.read.contains(name) && !self.write.contains(name));
    }

    /// Adds them to the attributes of a commit; an empty list takes no byte.
    pub(crate) fn put_into(&self, attributes: &mut Attributes) {
        for (tag, names) in TAGS.into_iter().zip([&self.read, &self.write, &self.optional]) {
            if !names.is_empty() {
                let mut out = Encoder::new();
                out.varint(names.len() as u64);
                names.iter().for_each(|name| out.string(name.as_bytes()));
                attributes.set(Attribute { tag, is_critical: false, value: out.finish() });
            }
        }
    }

    /// Removes them from the attributes of a commit.
    pub(crate) fn take_from(attributes: &mut Attributes) -> std::result::Result<Features, DecodeError> {
        let [read, write, optional] = TAGS.map(|tag| match attributes.take(tag) {
            Some(value) => decode_names(&value),
            None => Ok(Vec::new()),
        });
        let features = Features { read: read?, write: write?, optional: optional? };
        features.validate().map(|()| features).map_err(DecodeError::Invalid)
    }

    /// Fails unless the names and their order are valid.
    pub fn validate(&self) -> std::result::Result<(), &'static str> {
        let lists = [&self.read, &self.write, &self.optional];
        let all: Vec<&String> = lists.into_iter().flatten().collect();
        if all.len() > limits::FEATURES_MAX {
            return Err("the number of features is over the limit");
        }
        if !all.iter().all(|name| is_name(name)) {
            return Err("the name of a feature is not valid");
        }
        if !lists.iter().all(|list| list.is_sorted()) {
            return Err("features are not in order");
        }
        match all.iter().collect::<BTreeSet<_>>().len() == all.len() {
            true => Ok(()),
            false => Err("a feature is listed twice"),
        }
    }

    /// Fails if this program must not read the repository.
    pub fn check_readable(&self) -> Result<()> {
        match first_unknown(&self.read) {
            None => Ok(()),
            Some(name) => Err(newer(name.to_owned())),
        }
    }

    /// Fails if this program must not write to the repository.
    pub fn check_writable(&self) -> Result<()> {
        self.check_readable()?;
        match first_unknown(&self.write) {
            None => Ok(()),
            Some(name) => Err(newer(format!("{name} to be written to, and can only be read"))),
        }
    }

    /// The part of the MAC's message that covers the lists.
    pub(crate) fn mac_message(&self) -> String {
        let Features { read, write, optional } = self;
        format!("read={};write={};optional={}", read.join(","), write.join(","), optional.join(","))
    }
}

fn decode_names(value: &[u8]) -> std::result::Result<Vec<String>, DecodeError> {
    let mut input = Decoder::new(value);
    let name = |input: &mut Decoder<'_>| {
        let bytes = input.string(limits::FEATURE_NAME_BYTES_MAX, "the name of a feature")?;
        String::from_utf8(bytes.to_vec()).map_err(|_| DecodeError::Invalid("the name of a feature"))
    };
    let count = input.count(limits::FEATURES_MAX, "the number of features")?;
    let names = (0..count).map(|_| name(&mut input)).collect::<std::result::Result<Vec<_>, _>>()?;
    input.end()?;
    // One commit has one encoding.
    if names.is_empty() { Err(DecodeError::Invalid("an empty list of features")) } else { Ok(names) }
}

fn newer(needs: String) -> Error {
    Error::Newer { what: "the repository".into(), needs }
}

fn first_unknown(names: &[String]) -> Option<&str> {
    names.iter().map(String::as_str).find(|name| !KNOWN.contains(name))
}

fn is_name(name: &str) -> bool {
    let is_allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    (1..=limits::FEATURE_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(read: &[&str], write: &[&str], optional: &[&str]) -> Features {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Features { read: owned(read), write: owned(write), optional: owned(optional) }
    }

    #[test]
    fn names_are_short_sorted_and_never_twice() {
        let long = "x".repeat(limits::FEATURE_NAME_BYTES_MAX);
        assert_eq!(features(&["a-1", &long], &["b"], &["0"]).validate(), Ok(()));
        for bad in ["", "A", "a_b", "a,b", "a;b", "\u{e9}", &format!("{long}x")] {
            assert_eq!(features(&[], &[bad], &[]).validate(), Err("the name of a feature is not valid"), "{bad:?}");
        }
        assert_eq!(features(&[], &[], &["b", "a"]).validate(), Err("features are not in order"));
        for twice in [features(&["a", "a"], &[], &[]), features(&["a"], &[], &["a"])] {
            assert_eq!(twice.validate(), Err("a feature is listed twice"));
        }
        let names: Vec<String> = (0..=limits::FEATURES_MAX).map(|number| format!("{number:03}")).collect();
        let many = Features { optional: names, ..Features::default() };
        assert_eq!(many.validate(), Err("the number of features is over the limit"));
    }

    #[test]
    fn an_unknown_feature_limits_what_may_be_done() {
        let optional = features(&[], &[], &["x"]);
        assert!(optional.check_readable().is_ok() && optional.check_writable().is_ok());
        let write = features(&[], &["parity"], &["x"]);
        assert!(write.check_readable().is_ok());
        let error = write.check_writable().unwrap_err().to_string();
        let text = "the repository was made by a newer bygone: it needs parity to be written to, and can only be read; \
                    get a newer bygone";
        assert_eq!(error, text);
        let read = features(&["other-ciphers"], &[], &[]);
        let text = "the repository was made by a newer bygone: it needs other-ciphers; get a newer bygone";
        assert_eq!(read.check_readable().unwrap_err().to_string(), text);
        assert_eq!(read.check_writable().unwrap_err().to_string(), text);
    }
}
