//! The project's source, read as text.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// The folders with Rust in them.
pub const CRATES: [&str; 5] = ["core", "cli", "agent", "mount", "tests"];

/// A source file: its path from the top of the project, and its text.
pub struct Source {
    pub path: String,
    pub text: String,
}

impl Source {
    /// The text without `//` comments. A `//` inside a string ends the line too early, which only makes a rule miss.
    pub fn code(&self) -> String {
        let code_of = |line: &str| line.split("//").next().unwrap_or("").to_string();
        self.text.lines().map(code_of).collect::<Vec<_>>().join("\n")
    }

    /// The code that is in the library, without its unit tests.
    pub fn code_without_tests(&self) -> String {
        if self.path.ends_with("tests.rs") || self.path.contains("/tests/") {
            return String::new();
        }
        let code = self.code();
        let mut lines = code.lines();
        let mut kept = Vec::new();
        while let Some(line) = lines.next() {
            if line.trim() != "#[cfg(test)]" {
                kept.push(line);
                continue;
            }
            // The item under the attribute: to its semicolon, or to the brace that closes it.
            let end = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
            let mut first = true;
            for line in lines.by_ref() {
                let is_attribute = line.trim_start().starts_with('#');
                let is_whole = first && !is_attribute && line.ends_with(';');
                first &= is_attribute;
                if is_whole || line == end {
                    break;
                }
            }
        }
        kept.join("\n")
    }

    /// The words of its identifiers in lower case: `VolumeWriter::seal_frame` is volume, writer, seal, frame.
    pub fn words(&self) -> Vec<(String, String)> {
        let code = strings_removed(&self.code());
        let names = code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|name| !name.is_empty());
        names.flat_map(|name| words_of(name).into_iter().map(|word| (word, name.to_string()))).collect()
    }
}

/// The words that a name is made of: cut at `_` and where a capital follows a small letter.
fn words_of(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = '_';
    for c in name.chars() {
        if c == '_' || (c.is_uppercase() && before.is_lowercase()) {
            words.push(String::new());
        }
        if c != '_' {
            words.last_mut().unwrap().extend(c.to_lowercase());
        }
        before = c;
    }
    words.retain(|word| !word.is_empty());
    words
}

/// `code` with what stands between double quotes on one line left out.
fn strings_removed(code: &str) -> String {
    let outside = |line: &str| line.split('"').step_by(2).collect::<Vec<_>>().join(" ");
    code.lines().map(outside).collect::<Vec<_>>().join("\n")
}

pub fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// All files below `folder` (from the top of the project) whose name ends with `ending`, sorted.
pub fn files_below(folder: &str, ending: &str) -> Vec<Source> {
    let top = top();
    let mut found = Vec::new();
    let mut folders = vec![top.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                let below = path.strip_prefix(&top).unwrap().display().to_string();
                found.push(Source { path: below, text: fs::read_to_string(&path).unwrap() });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Every Rust file of ours.
pub fn rust_files() -> Vec<Source> {
    CRATES.iter().flat_map(|folder| files_below(folder, ".rs")).collect()
}

#[test]
fn only_the_items_for_tests_are_cut_off() {
    let text =
        "use a;\n#[cfg(test)]\nmod tests;\nfn b() {\n    c();\n}\n#[cfg(test)]\nfn d() {\n    e();\n}\nfn f() {}";
    let source = Source { path: "x.rs".into(), text: text.into() };
    assert_eq!(source.code_without_tests(), "use a;\nfn b() {\n    c();\n}\nfn f() {}");
}

/// Panics with all of `wrong`, a line each: whoever breaks a rule wants to see every place at once.
#[track_caller]
pub fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} places:\n{}", wrong.len(), wrong.join("\n"));
}
