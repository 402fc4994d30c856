//! Reading a LIST, page by page, from a service that may send anything.
//!
//! A list that is too short is worse than none. So each page must be a complete `ListBucketResult` about our prefix; a
//! page that announces more must say how to get it, with a new token; and keys must rise strictly, from the first key
//! of the first page to the last key of the last. A service that repeats itself, or breaks the order, is an error.

use std::borrow::Cow;
use std::io;

use serde::Deserialize;

use crate::store::s3::trouble::Trouble;
use crate::store::s3::xml::root;

/// Most pages of a list: four million volumes are 256 TB.
pub(super) const PAGES_MAX: usize = 4_000;
/// Longest page: a thousand keys of 1,024 bytes, each escaped threefold, with their ETags and dates.
pub(super) const PAGE_BYTES_MAX: usize = 8 << 20;
/// Most empty pages that announce more; services may send a few.
const EMPTY_PAGES_MAX: usize = 16;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    is_truncated: bool,
    prefix: Option<String>,
    encoding_type: Option<String>,
    next_continuation_token: Option<String>,
    #[serde(default)]
    contents: Vec<Object>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Object {
    key: String,
    size: u64,
    #[serde(rename = "ETag")]
    etag: Option<String>,
}

/// An object in a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// The whole key.
    pub key: String,
    pub bytes: u64,
    pub etag: Option<String>,
}

/// What the pages so far have established.
pub(super) struct Pages<'a> {
    prefix: &'a str,
    last: Option<String>,
    token: Option<String>,
    seen: usize,
    empty: usize,
}

impl<'a> Pages<'a> {
    /// For a LIST of keys that start with `prefix`.
    pub fn new(prefix: &'a str) -> Pages<'a> {
        Pages { prefix, last: None, token: None, seen: 0, empty: 0 }
    }

    /// The token for the next page.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Takes a page. Returns its objects, and whether there are more pages.
    pub fn take(&mut self, body: &[u8]) -> io::Result<(Vec<Item>, bool)> {
        let text = std::str::from_utf8(body).map_err(|_| Trouble::nonsense("the list is not text"))?;
        if root(text).as_deref() != Some("ListBucketResult") {
            return Err(Trouble::nonsense("the answer is not a list of objects"));
        }
        let page: Page = quick_xml::de::from_str(text)
            .map_err(|cause| Trouble::nonsense(&format!("the list of objects is incomplete ({cause})")))?;
        let is_escaped = page.encoding_type.as_deref() == Some("url");
        if let Some(prefix) = &page.prefix
            && unescaped(prefix, is_escaped)? != self.prefix
            && prefix != self.prefix
        {
            return Err(Trouble::nonsense("the list is about the wrong objects"));
        }
        let mut items = Vec::with_capacity(page.contents.len());
        for object in page.contents {
            let key = unescaped(&object.key, is_escaped)?.into_owned();
            if !key.starts_with(self.prefix) {
                return Err(Trouble::nonsense("the list contains objects that were not requested"));
            }
            if self.last.as_ref().is_some_and(|last| *last >= key) {
                return Err(Trouble::nonsense("the list of objects is out of order or repeats itself"));
            }
            self.last = Some(key.clone());
            let etag = object.etag.map(|etag| etag.trim().trim_matches('"').to_owned()).filter(|etag| !etag.is_empty());
            items.push(Item { key, bytes: object.size, etag });
        }
        self.seen += 1;
        if !page.is_truncated {
            return Ok((items, false));
        }
        let next = page.next_continuation_token.filter(|token| !token.is_empty());
        let next = next.ok_or_else(|| Trouble::nonsense("the list has more pages but does not say how to get them"))?;
        if self.token.as_ref() == Some(&next) {
            return Err(Trouble::nonsense("the list repeats the same page"));
        }
        self.empty += usize::from(items.is_empty());
        if self.seen >= PAGES_MAX || self.empty > EMPTY_PAGES_MAX {
            return Err(Trouble::nonsense("the list does not end"));
        }
        self.token = Some(next);
        Ok((items, true))
    }
}

/// A name without the service's escapes.
pub(super) fn unescaped(text: &str, is_escaped: bool) -> io::Result<Cow<'_, str>> {
    if !is_escaped || !text.contains(['%', '+']) {
        return Ok(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        match byte {
            b'%' => {
                let value = digit(rest.next()).zip(digit(rest.next())).map(|(high, low)| high * 16 + low);
                let value = value.and_then(|value| u8::try_from(value).ok());
                bytes.push(value.ok_or_else(|| Trouble::nonsense("a name in the list is wrongly escaped"))?);
            }
            b'+' => bytes.push(b' '),
            other => bytes.push(other),
        }
    }
    // A key that is not UTF-8 cannot be one of ours; it still takes part in the order.
    Ok(Cow::Owned(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn page(keys: &[&str], rest: &str) -> String {
        let objects: String = keys
            .iter()
            .map(|key| format!("<Contents><Key>{key}</Key><ETag>&quot;ab&quot;</ETag><Size>3</Size></Contents>"))
            .collect();
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
             <Name>b</Name><Prefix>p/</Prefix><MaxKeys>1000</MaxKeys>{rest}{objects}</ListBucketResult>"
        )
    }

    const LAST: &str = "<IsTruncated>false</IsTruncated>";

    fn more(token: &str) -> String {
        format!("<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>")
    }

    #[test]
    fn pages_follow_each_other_to_the_end() {
        let mut pages = Pages::new("p/");
        let (items, goes_on) = pages.take(page(&["p/a", "p/b"], &more("t1")).as_bytes()).unwrap();
        assert_eq!(items[0], Item { key: "p/a".into(), bytes: 3, etag: Some("ab".into()) });
        assert!(goes_on && pages.token() == Some("t1"));
        let escaped = format!("<EncodingType>url</EncodingType>{LAST}");
        let (items, goes_on) = pages.take(page(&["p%2Fc%20d"], &escaped).as_bytes()).unwrap();
        assert_eq!((items[0].key.as_str(), goes_on), ("p/c d", false));
    }

    #[test]
    fn a_list_that_lies_is_an_error_and_never_a_shorter_list() {
        let refused = |pages: &[String]| {
            let mut so_far = Pages::new("p/");
            let last = pages.iter().map(|page| so_far.take(page.as_bytes())).last().unwrap();
            last.unwrap_err().to_string()
        };
        let whole = page(&["p/a"], LAST);
        for (at, _) in whole.char_indices().filter(|(at, _)| *at < whole.len()) {
            refused(&[whole[..at].to_owned()]);
        }
        assert!(refused(&[page(&["p/a"], "<IsTruncated>true</IsTruncated>")]).contains("how to get them"));
        assert!(refused(&[page(&["p/a"], &more("t")), page(&["p/b"], &more("t"))]).contains("repeats the same page"));
        assert!(refused(&[page(&["p/a"], &more("t")), page(&["p/a"], LAST)]).contains("repeats itself"));
        assert!(refused(&[page(&["p/b", "p/a"], LAST)]).contains("out of order"));
        assert!(refused(&[page(&["q/a"], LAST)]).contains("not requested"));
        assert!(refused(&[page(&["p/a"], "")]).contains("incomplete"), "whether there is more must be said");
        assert!(refused(&[whole.replace("<Prefix>p/", "<Prefix>q/")]).contains("wrong objects"));
        for nonsense in ["", "<html><body>Sign in</body></html>", "{}", "<Error><Code>InternalError</Code></Error>"] {
            assert!(refused(&[nonsense.to_owned()]).contains("not a list"), "{nonsense}");
        }
        let endless: Vec<String> = (0..40).map(|number| page(&[], &more(&number.to_string()))).collect();
        assert!(refused(&endless).contains("does not end"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Pages::new("").take(&bytes);
        }

        #[test]
        fn a_page_with_anything_changed_is_taken_without_harm(at in 0_usize..300, with in any::<u8>()) {
            let mut bytes = page(&["p/a", "p/b"], &more("t")).into_bytes();
            let place = at % bytes.len();
            bytes[place] = with;
            let _ = Pages::new("p/").take(&bytes);
        }
    }
}
