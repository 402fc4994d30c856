//! Output of a command: results on standard output, messages on standard error, for people or as JSON.
//!
//! - The reader of our output may stop early (`| head`). This ends the output quietly and does not affect the command.
//! - Names from a disk or a repository may contain any byte. For people they are escaped
//!   ([`printable`](bygone_core::entry::printable)), and a message is one line whatever it contains.
//! - JSON holds only Unicode. Bytes that are not UTF-8 are given twice: as text with replacement characters, and exactly,
//!   as hexadecimal.

use std::fs::File;
use std::io;
use std::io::BufWriter;
use std::io::IsTerminal;
use std::io::Write;
use std::os::fd::AsFd;

use serde::Serialize;
use serde_json::Value;
use serde_json::json;

use bygone_core::diagnosis::Diagnosis;
use bygone_core::id::hex;

use crate::exit::Exit;
use crate::exit::Failure;
use crate::exit::Result;

const BUFFER_BYTES: usize = 64 << 10;

/// Standard output, buffered.
pub struct Output {
    /// `None` if the program was started without standard output, or if the reader has gone.
    writer: Option<BufWriter<File>>,
    /// Results are JSON.
    pub json: bool,
}

impl Output {
    /// Standard output of this process.
    pub fn new(json: bool) -> Output {
        // A separate file, because `io::stdout` searches everything for line ends.
        let file = io::stdout().as_fd().try_clone_to_owned().ok().map(File::from);
        Output { writer: file.map(|file| BufWriter::with_capacity(BUFFER_BYTES, file)), json }
    }

    /// True once the reader has gone: a command that only writes may end.
    pub fn is_closed(&self) -> bool {
        self.writer.is_none()
    }

    /// Writes bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.with(|writer| writer.write_all(bytes))
    }

    /// Writes a line.
    pub fn line(&mut self, text: &str) -> Result<()> {
        self.with(|writer| writer.write_all(text.as_bytes()).and_then(|()| writer.write_all(b"\n")))
    }

    /// Writes JSON, followed by a line end.
    pub fn value(&mut self, value: &impl Serialize) -> Result<()> {
        self.with(|writer| {
            serde_json::to_writer(&mut *writer, value)?;
            writer.write_all(b"\n")
        })
    }

    /// Writes out the buffer.
    pub fn flush(&mut self) -> Result<()> {
        self.with(|writer| writer.flush())
    }

    fn with(&mut self, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        match write(writer) {
            Ok(()) => Ok(()),
            Err(error) => {
                // Dropping the writer would try to write the buffer again.
                if let Some(writer) = self.writer.take() {
                    let _ = writer.into_parts();
                }
                if error.kind() == io::ErrorKind::BrokenPipe {
                    return Ok(());
                }
                Err(Failure::machine("write to", "standard output")(error))
            }
        }
    }
}

/// True if results go to a terminal.
pub fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Writes a message to standard error. If that fails, there is nowhere to report it.
pub fn message(text: &str) {
    let mut stderr = io::stderr().lock();
    // The progress line may be there.
    let wiped = if stderr.is_terminal() { "\r\x1b[K" } else { "" };
    let _ = writeln!(stderr, "{wiped}bygone: {}", one_line(text));
}

/// Writes a warning: something that the user should know, but that does not stop the command.
pub fn warn(json: bool, text: &str) {
    if json {
        let _ = writeln!(io::stderr().lock(), "{}", json!({ "warning": { "message": text } }));
    } else {
        message(&format!("warning: {text}"));
    }
}

/// Writes why the command failed, with the code of the diagnosis if there is one.
pub fn fail(json: bool, exit: Exit, code: Option<Diagnosis>, text: &str) {
    if json {
        let _ = writeln!(io::stderr().lock(), "{}", error_value(exit, code, text));
    } else {
        message(text);
    }
}

fn error_value(exit: Exit, code: Option<Diagnosis>, text: &str) -> Value {
    let mut error = json!({ "kind": exit.word(), "exit_code": exit.code(), "message": text });
    if let (Some(code), Some(object)) = (code, error.as_object_mut()) {
        object.insert("code".to_owned(), json!(code.code()));
    }
    json!({ "error": error })
}

/// `text` without anything that could start another line or control a terminal.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.trim_end().chars() {
        match c {
            '\n' => line.push(' '),
            c if c.is_control() => c.to_string().bytes().for_each(|byte| line.push_str(&format!("\\x{byte:02x}"))),
            c => line.push(c),
        }
    }
    line
}

/// Adds raw bytes to a JSON object: as text under `key` and, if they are not UTF-8, as hexadecimal under `key` + `_hex`.
pub fn insert_bytes(object: &mut serde_json::Map<String, Value>, key: &str, bytes: &[u8]) {
    object.insert(key.to_owned(), Value::String(String::from_utf8_lossy(bytes).into_owned()));
    if std::str::from_utf8(bytes).is_err() {
        object.insert(format!("{key}_hex"), Value::String(hex(bytes)));
    }
}

/// A number of bytes for people: about three digits, in powers of 1,024.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in UNITS {
        // A value that would round to 1024 is written in the next unit.
        if value < 1023.5 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" {
        format!("{bytes} B")
    } else if value < 9.95 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

/// A number with thousands separators.
pub fn number(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of things, with the noun in singular or plural.
pub fn count(things: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(things), if things == 1 { one } else { many })
}

/// A duration for people.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3_600 => format!("{}:{:02} min", whole / 60, whole % 60),
        _ => format!("{}:{:02}:{:02} h", whole / 3_600, whole / 60 % 60, whole % 60),
    }
}

/// Alignment of a column of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Rows of text under headings, in columns as wide as their content.
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new(columns: &[(&'static str, Align)]) -> Table {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row: one text for each column.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The lines, headings first.
    pub fn lines(&self) -> Vec<String> {
        let heads: Vec<String> = self.columns.iter().map(|(head, _)| (*head).to_owned()).collect();
        let mut widths: Vec<usize> = heads.iter().map(|head| head.chars().count()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        std::iter::once(&heads).chain(&self.rows).map(|row| self.set(row, &widths)).collect()
    }

    fn set(&self, row: &[String], widths: &[usize]) -> String {
        let cells = row.iter().zip(widths).zip(&self.columns).map(|((cell, width), (_, align))| match align {
            Align::Left => format!("{cell:<width$}"),
            Align::Right => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_numbers_and_durations_are_short_and_right() {
        let sizes = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (10 << 10, "10 KiB"),
            (1_048_575, "1.0 MiB"),
            (64 << 20, "64 MiB"),
            (u64::MAX, "16 EiB"),
        ];
        for (bytes, text) in sizes {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(number(0), "0");
        assert_eq!(number(999), "999");
        assert_eq!(number(1_234_567), "1,234,567");
        assert_eq!(count(1, "file", "files"), "1 file");
        assert_eq!(count(1_000, "file", "files"), "1,000 files");
        assert_eq!(duration(1.25), "1.2 s");
        assert_eq!(duration(61.9), "1:01 min");
        assert_eq!(duration(3_661.0), "1:01:01 h");
    }

    #[test]
    fn a_message_is_one_line_and_cannot_control_a_terminal() {
        assert_eq!(one_line("a\nb\x1b[2J\u{9b}c\n"), "a b\\x1b[2J\\xc2\\x9bc");
    }

    #[test]
    fn an_error_is_an_object_with_kind_code_and_message() {
        let text = error_value(Exit::Failed, None, "a \"word\"").to_string();
        assert_eq!(text, r#"{"error":{"exit_code":1,"kind":"failed","message":"a \"word\""}}"#);
        let coded = error_value(Exit::WrongKey, Some(Diagnosis::WrongKey), "x").to_string();
        assert_eq!(coded, r#"{"error":{"code":"WRONG_KEY","exit_code":12,"kind":"wrong-key","message":"x"}}"#);
    }

    #[test]
    fn bytes_that_are_not_text_are_given_exactly_beside_the_text() {
        let mut object = serde_json::Map::new();
        insert_bytes(&mut object, "path", b"/a");
        insert_bytes(&mut object, "name", b"\xff");
        assert_eq!(Value::Object(object), json!({ "path": "/a", "name": "\u{fffd}", "name_hex": "ff" }));
    }

    #[test]
    fn a_table_is_as_wide_as_its_widest_cells() {
        let mut table = Table::new(&[("id", Align::Left), ("size", Align::Right)]);
        table.row(vec!["abcd".into(), "1".into()]);
        table.row(vec!["a".into(), "12345".into()]);
        assert_eq!(table.lines(), ["id     size", "abcd      1", "a     12345"]);
    }
}
