//! Patterns over raw bytes that select paths.
//!
//! A pattern is matched against the path inside the snapshot, component by component:
//!
//! - without a slash (`*.o`, `cache`), it matches the last component at any depth;
//! - with a slash at its beginning (`/home/*/tmp`), it matches from the root;
//! - with a slash elsewhere (`target/debug`), it matches any run of components;
//! - `*`, `?` and `[a-z]` (`[!a-z]` for the opposite) match within one component, `**` as a whole component matches any
//!   number of components, `\` makes the next byte ordinary, and a slash at the end is ignored.
//!
//! A match includes everything below it, so excluding `a/**` leaves out the content of `a` and keeps `a`.
//!
//! No path is ever joined. For each pattern with several components, each directory carries the set of positions up to
//! which the pattern has matched (`PathState`); a name moves each position one step further. The cost is a few
//! comparisons a name, however deep the tree.

use std::sync::Arc;

/// A set of patterns.
#[derive(Debug, Clone, Default)]
pub struct Excludes {
    /// Patterns of one component, which match at any depth.
    names: Vec<Glob>,
    /// All others.
    paths: Vec<Vec<Part>>,
}

/// How far each pattern of several components has matched on the way down to one directory: if bit `p` of a pattern's
/// word is set, its first `p` parts match the directory's path.
#[derive(Debug, Clone)]
pub(crate) struct PathState(Option<Arc<[u64]>>);

/// An invalid pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pattern {pattern:?} {why}")]
pub struct BadPattern {
    /// The pattern, printable.
    pub pattern: String,
    /// What is wrong with it.
    pub why: &'static str,
}

/// Positions are bits of a word; the last one is the end.
const PARTS_MAX: usize = 63;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// `**`: any number of components.
    AnyDepth,
    /// One component.
    One(Glob),
}

/// A pattern for one component.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Glob {
    Literal(Vec<u8>),
    Tokens(Vec<Token>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Byte(u8),
    One,
    Many,
    Class { inverted: bool, ranges: Vec<(u8, u8)> },
}

impl Excludes {
    /// Parses patterns in the form that the module describes.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a [u8]>) -> Result<Excludes, BadPattern> {
        let mut excludes = Excludes::default();
        for pattern in patterns {
            excludes.add(pattern).map_err(|why| BadPattern { pattern: bygone_core::entry::printable(pattern), why })?;
        }
        Ok(excludes)
    }

    fn add(&mut self, pattern: &[u8]) -> Result<(), &'static str> {
        let mut parts = Vec::new();
        if pattern.first() != Some(&b'/') {
            parts.push(Part::AnyDepth);
        }
        for component in pattern.split(|b| *b == b'/') {
            match component {
                b"" | b"." => {}
                b".." => return Err("leads out of its directory: write the path without `..`"),
                b"**" if parts.last() == Some(&Part::AnyDepth) => {}
                b"**" => parts.push(Part::AnyDepth),
                component => parts.push(Part::One(Glob::new(component)?)),
            }
        }
        if parts.last() == Some(&Part::AnyDepth) && pattern.contains(&b'*') {
            // A match includes everything below it, so one component here is as good as any number.
            parts.push(Part::One(Glob::Tokens(vec![Token::Many])));
        }
        match parts.as_slice() {
            [] | [Part::AnyDepth] => return Err("is empty"),
            [Part::AnyDepth, Part::One(glob)] => self.names.push(glob.clone()),
            _ if parts.len() > PARTS_MAX => return Err("has too many components (63 are allowed)"),
            _ => self.paths.push(parts),
        }
        Ok(())
    }

    /// True if there is no pattern.
    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty() && self.paths.is_empty()
    }

    /// The state at the root of the snapshot.
    pub(crate) fn root(&self) -> PathState {
        PathState((!self.paths.is_empty()).then(|| self.paths.iter().map(|parts| reached(parts, 1)).collect()))
    }

    /// True if `name` matches in a directory of this state.
    pub(crate) fn excludes(&self, state: &PathState, name: &[u8]) -> bool {
        self.names.iter().any(|glob| glob.matches(name))
            || self.pairs(state).any(|(parts, before)| step(parts, before, name) >> parts.len() & 1 == 1)
    }

    /// The state of the directory `name` in a directory of this state.
    pub(crate) fn descend(&self, state: &PathState, name: &[u8]) -> PathState {
        PathState(
            state.0.is_some().then(|| self.pairs(state).map(|(parts, before)| step(parts, before, name)).collect()),
        )
    }

    /// As [`Excludes::descend`], for a directory that the user wants whatever the patterns say: those that match it end
    /// here, because they would also match everything below it.
    pub(crate) fn descend_wanted(&self, state: &PathState, name: &[u8]) -> PathState {
        let after = |(parts, before): (&Vec<Part>, u64)| {
            let after = step(parts, before, name);
            if after >> parts.len() & 1 == 1 { 0 } else { after }
        };
        PathState(state.0.is_some().then(|| self.pairs(state).map(after).collect()))
    }

    fn pairs<'a>(&'a self, state: &'a PathState) -> impl Iterator<Item = (&'a Vec<Part>, u64)> {
        self.paths.iter().zip(state.0.iter().flat_map(|words| words.iter().copied()))
    }
}

/// The positions in `parts` after one more component.
fn step(parts: &[Part], before: u64, name: &[u8]) -> u64 {
    let mut after = 0;
    for (position, part) in parts.iter().enumerate() {
        if before >> position & 1 == 1 {
            match part {
                Part::AnyDepth => after |= 1 << position,
                Part::One(glob) if glob.matches(name) => after |= 1 << (position + 1),
                Part::One(_) => {}
            }
        }
    }
    reached(parts, after)
}

/// Adds the positions that need no component, because `**` may match none.
fn reached(parts: &[Part], mut positions: u64) -> u64 {
    for (position, part) in parts.iter().enumerate() {
        if positions >> position & 1 == 1 && *part == Part::AnyDepth {
            positions |= 1 << (position + 1);
        }
    }
    positions
}

impl Glob {
    fn new(pattern: &[u8]) -> Result<Glob, &'static str> {
        let mut tokens = Vec::new();
        let mut rest = pattern;
        while let Some((first, after)) = rest.split_first() {
            rest = after;
            match first {
                b'*' if tokens.last() == Some(&Token::Many) => {}
                b'*' => tokens.push(Token::Many),
                b'?' => tokens.push(Token::One),
                b'[' => tokens.push(class(&mut rest)?),
                b'\\' => tokens.push(Token::Byte(taken(&mut rest).ok_or("ends with a backslash")?)),
                byte => tokens.push(Token::Byte(*byte)),
            }
        }
        let literal = tokens.iter().map(|token| match token {
            Token::Byte(byte) => Some(*byte),
            _ => None,
        });
        Ok(literal.collect::<Option<Vec<u8>>>().map_or(Glob::Tokens(tokens), Glob::Literal))
    }

    fn matches(&self, name: &[u8]) -> bool {
        match self {
            Glob::Literal(literal) => literal == name,
            Glob::Tokens(tokens) => tokens_match(tokens, name),
        }
    }
}

/// Linear except for `*`, of which only the last one is retried: at most tokens times bytes steps.
fn tokens_match(tokens: &[Token], name: &[u8]) -> bool {
    let (mut rest, mut left) = (tokens, name);
    let mut again: Option<(&[Token], &[u8])> = None;
    loop {
        match (rest.split_first(), left.split_first()) {
            (None, None) => return true,
            (Some((Token::Many, after)), _) => {
                again = Some((after, left));
                rest = after;
                continue;
            }
            (Some((token, after)), Some((byte, behind))) if token.takes(*byte) => {
                (rest, left) = (after, behind);
                continue;
            }
            _ => {}
        }
        let Some((after, [_, behind @ ..])) = again else { return false };
        again = Some((after, behind));
        (rest, left) = (after, behind);
    }
}

impl Token {
    fn takes(&self, byte: u8) -> bool {
        match self {
            Token::Byte(own) => *own == byte,
            Token::One => true,
            Token::Many => false,
            Token::Class { inverted, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&byte)) != *inverted
            }
        }
    }
}

/// Parses a class from after its `[` to after its `]`. A `]` right after the opening stands for itself.
fn class(rest: &mut &[u8]) -> Result<Token, &'static str> {
    const OPEN: &str = "has a `[` without its `]`";
    let mut ranges = Vec::new();
    let inverted = matches!(rest.first(), Some(b'!' | b'^'));
    if inverted {
        taken(rest);
    }
    loop {
        let low = match taken(rest).ok_or(OPEN)? {
            b']' if !ranges.is_empty() => return Ok(Token::Class { inverted, ranges }),
            b'\\' => taken(rest).ok_or(OPEN)?,
            byte => byte,
        };
        let mut high = low;
        if let [b'-', end, ..] = **rest
            && end != b']'
        {
            taken(rest);
            high = match taken(rest).ok_or(OPEN)? {
                b'\\' => taken(rest).ok_or(OPEN)?,
                byte => byte,
            };
        }
        if high < low {
            return Err("has a range that ends before it begins");
        }
        ranges.push((low, high));
    }
}

fn taken(rest: &mut &[u8]) -> Option<u8> {
    let (first, after) = rest.split_first()?;
    *rest = after;
    Some(*first)
}

/// The patterns in a file of patterns: one a line, without surrounding blanks. Empty lines and lines starting with `#`
/// are ignored.
pub fn pattern_lines(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = file.split(|b| *b == b'\n').map(<[u8]>::trim_ascii);
    lines.filter(|line| !line.is_empty() && line.first() != Some(&b'#'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// True if `path` or a directory on the way to it is excluded.
    fn excluded(pattern: &str, path: &str) -> bool {
        let excludes = Excludes::new([pattern.as_bytes()]).unwrap();
        let mut state = excludes.root();
        path.split('/').skip(1).any(|name| {
            let hit = excludes.excludes(&state, name.as_bytes());
            state = excludes.descend(&state, name.as_bytes());
            hit
        })
    }

    #[test]
    fn patterns_match_as_described() {
        let table: &[(&str, &[&str], &[&str])] = &[
            ("*.o", &["/a.o", "/d/e/a.o", "/.o", "/a.o/b"], &["/a.oo", "/a", "/o"]),
            ("cache", &["/cache", "/x/cache/y"], &["/cache2", "/x/my cache"]),
            ("/home/*/tmp", &["/home/u/tmp", "/home/u/tmp/x"], &["/home/tmp", "/home/u/v/tmp", "/x/home/u/tmp"]),
            ("target/debug", &["/target/debug", "/a/target/debug/b"], &["/target/x/debug", "/debug", "/target"]),
            ("target/debug/", &["/a/target/debug"], &["/target"]),
            ("cache/", &["/a/cache"], &["/a/cach"]),
            ("/a/**/z", &["/a/z", "/a/b/z", "/a/b/c/z/y"], &["/a", "/z", "/b/a/z"]),
            ("a/**", &["/a/b", "/x/a/b/c"], &["/a", "/x/a"]),
            ("/**/b", &["/b", "/a/b"], &["/a"]),
            ("**/b/**/d", &["/b/d", "/a/b/c/d"], &["/b", "/d/b"]),
            ("?", &["/a"], &["/ab"]),
            ("[a-c]x", &["/ax", "/cx"], &["/dx", "/x", "/-x"]),
            ("[!a-c]x", &["/dx"], &["/ax"]),
            ("[]x]", &["/]", "/x"], &["/y"]),
            ("[a-]", &["/a", "/-"], &["/b"]),
            (r"[\]]", &["/]"], &["/\\"]),
            (r"\*", &["/*"], &["/a"]),
            ("a*b*c", &["/abc", "/a__b__bc", "/abcbc"], &["/ab", "/acb", "/abcd"]),
            ("*", &["/a", "/a/b"], &[]),
            ("**", &["/a", "/a/b"], &[]),
            ("/", &[], &[]),
        ];
        for (pattern, hits, misses) in table.iter().filter(|(pattern, ..)| *pattern != "/") {
            for path in *hits {
                assert!(excluded(pattern, path), "{pattern} excludes {path}");
            }
            for path in *misses {
                assert!(!excluded(pattern, path), "{pattern} keeps {path}");
            }
        }
    }

    #[test]
    fn a_pattern_that_matches_a_wanted_directory_ends_there() {
        let excludes = Excludes::new([&b"/z/**"[..], b"/z/p/*.o", b"/z/**/q"]).unwrap();
        let z = excludes.descend(&excludes.root(), b"z");
        assert!(excludes.excludes(&z, b"p") && excludes.excludes(&excludes.descend(&z, b"p"), b"x"));
        let p = excludes.descend_wanted(&z, b"p");
        assert!(!excludes.excludes(&p, b"x") && excludes.excludes(&p, b"x.o") && excludes.excludes(&p, b"q"));
    }

    #[test]
    fn an_invalid_pattern_is_refused() {
        for bad in ["", "/", "./", "a/[b/c]", "[", "[a", "[!", "[b-a]", "\\", "../a", &"a/".repeat(64)] {
            assert!(Excludes::new([bad.as_bytes()]).is_err(), "{bad:?}");
        }
        assert!(Excludes::new(["a/".repeat(62).as_bytes()]).is_ok(), "62 components and the run before them");
    }

    #[test]
    fn bytes_that_are_not_text_match_as_bytes() {
        let excludes = Excludes::new([&b"\xff*"[..], b"[\x80-\x90]"]).unwrap();
        let root = excludes.root();
        assert!(excludes.excludes(&root, b"\xff\xfe") && excludes.excludes(&root, b"\x85"));
        assert!(!excludes.excludes(&root, b"\xfe") && !excludes.excludes(&root, b"\x91"));
    }

    #[test]
    fn a_file_of_patterns_has_comments_and_blank_lines() {
        let lines: Vec<_> = pattern_lines(b"# no\n*.o\r\n\n  /a b \n#x").collect();
        assert_eq!(lines, [&b"*.o"[..], b"/a b"]);
    }

    proptest! {
        #[test]
        fn a_glob_agrees_with_a_plain_recursive_matcher(pattern in "[ab*?]{0,8}", name in "[ab]{0,10}") {
            fn plain(pattern: &[u8], name: &[u8]) -> bool {
                match (pattern, name) {
                    ([], []) => true,
                    ([b'*', rest @ ..], _) => (0..=name.len()).any(|skip| plain(rest, &name[skip..])),
                    ([b'?', rest @ ..], [_, behind @ ..]) => plain(rest, behind),
                    ([p, rest @ ..], [n, behind @ ..]) => p == n && plain(rest, behind),
                    _ => false,
                }
            }
            let glob = Glob::new(pattern.as_bytes()).unwrap();
            prop_assert_eq!(glob.matches(name.as_bytes()), plain(pattern.as_bytes(), name.as_bytes()));
        }

        #[test]
        fn no_pattern_makes_the_parser_panic(pattern in prop::collection::vec(any::<u8>(), 0..20)) {
            let _ = Excludes::new([pattern.as_slice()]);
        }
    }
}
