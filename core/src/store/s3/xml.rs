//! The outermost element of an XML answer, which identifies the kind of answer.
//!
//! A service, or whatever stands between it and us, may send anything. So the name of the outermost element is checked
//! before a body is parsed.

use quick_xml::Reader;
use quick_xml::events::Event;

/// The name of the outermost element, without its namespace's prefix, if `text` is XML.
pub(super) fn root(text: &str) -> Option<String> {
    let mut reader = Reader::from_str(text);
    loop {
        match reader.read_event().ok()? {
            Event::Start(element) => return String::from_utf8(element.local_name().as_ref().to_vec()).ok(),
            Event::Decl(_) | Event::Comment(_) | Event::PI(_) => {}
            Event::Text(text) if text.iter().all(u8::is_ascii_whitespace) => {}
            _ => return None,
        }
    }
}
