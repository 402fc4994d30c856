//! Lists of the fake S3 server, right or wrong.

use std::collections::BTreeMap;

use super::BUCKET;
use super::Fault;
use super::State;
use super::wire::Request;
use super::wire::Response;
use super::wire::etag;

/// The keys below the prefix that a list with ghosts shows in addition.
const GHOSTS: [&str; 2] = [
    "data/0a/0a00000000000000000000000000000000000000000000000000000000000000",
    "running/00000000000000000000000000000000",
];

/// A page of a list.
pub(super) fn list(state: &State, request: &Request, fault: Option<Fault>) -> Response {
    let prefix = request.query.get("prefix").cloned().unwrap_or_default();
    let token = request.query.get("continuation-token").cloned();
    let store = prefix.split('/').next().unwrap_or_default();
    let ghosts = GHOSTS.map(|name| (format!("{store}/{name}"), b"ghost".to_vec()));
    let ghosts = ghosts.iter().filter(|_| fault == Some(Fault::Ghosts)).map(|(key, bytes)| (key, bytes));
    let everything: BTreeMap<_, _> = state.objects.iter().chain(ghosts).collect();
    let is_shown = |key: &String| match (&state.list_before, fault) {
        (Some(before), Some(Fault::Lag)) => before.contains(key),
        _ => true,
    };
    let matching = everything.into_iter().filter(|(key, _)| key.starts_with(&prefix) && is_shown(key));
    let after = token.clone().unwrap_or_default();
    let mut objects: Vec<_> = matching.filter(|(key, _)| **key > after).collect();
    match fault {
        Some(Fault::Missing) => drop(objects.drain(..objects.len().min(1))),
        Some(Fault::Empty) => objects.clear(),
        Some(Fault::Unsorted) => objects.reverse(),
        Some(Fault::Duplicates) => objects = objects.iter().flat_map(|object| [*object, *object]).collect(),
        _ => {}
    }
    let mut next = (objects.len() > state.page_objects).then(|| objects[state.page_objects - 1].0.clone());
    objects.truncate(state.page_objects);
    let mut is_truncated = next.is_some();
    let number = token.as_deref().and_then(|token| token.strip_prefix("page-")).and_then(|n| n.parse::<u32>().ok());
    let endless = format!("{prefix}x{:09}", number.unwrap_or(0));
    match fault {
        Some(Fault::TruncatedWithoutToken) => (is_truncated, next) = (true, None),
        Some(Fault::SamePage) => (is_truncated, next) = (true, Some("again".into())),
        Some(Fault::EndlessPages) => {
            (is_truncated, next) = (true, Some(format!("page-{}", number.unwrap_or(0) + 1)));
        }
        _ => {}
    }
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
         <Name>{BUCKET}</Name><Prefix>{prefix}</Prefix><EncodingType>url</EncodingType><IsTruncated>{is_truncated}</IsTruncated>"
    );
    if let Some(next) = next {
        text += &format!("<NextContinuationToken>{next}</NextContinuationToken>");
    }
    if fault == Some(Fault::EndlessPages) {
        objects.clear();
        text += &format!("<Contents><Key>{endless}</Key><ETag>\"x\"</ETag><Size>1</Size></Contents>");
    }
    for (key, bytes) in objects {
        let mark = state.marks.get(key).cloned().unwrap_or_else(|| etag(bytes)).replace('"', "&quot;");
        text += &format!("<Contents><Key>{key}</Key><ETag>{mark}</ETag><Size>{}</Size></Contents>", bytes.len());
    }
    Response { status: 200, body: (text + "</ListBucketResult>").into(), ..Response::default() }
}
