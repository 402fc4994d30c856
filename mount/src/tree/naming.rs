//! Two things derived from the name of a file: the ending by which programs recognise its content, and a number.

/// The longest ending of a file name that its versions keep.
const ENDING_BYTES_MAX: usize = 16;

/// A number that depends only on `name`: FNV-1a.
pub fn key_of(name: &[u8]) -> u32 {
    name.iter().fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// The ending by which programs recognise a file, with its dot: `.pdf`, `.tar.gz`.
pub fn ending(name: &[u8]) -> &[u8] {
    let dot = |name: &[u8]| {
        let dot = name.iter().rposition(|byte| *byte == b'.').filter(|dot| *dot > 0)?;
        let ending = name.get(dot + 1..)?;
        let fits = (1..ENDING_BYTES_MAX).contains(&ending.len()) && ending.iter().all(u8::is_ascii_alphanumeric);
        fits.then_some(dot)
    };
    let Some(last) = dot(name) else { return b"" };
    let stem = name.get(..last).unwrap_or_default();
    let first = dot(stem).filter(|first| stem.get(first + 1..) == Some(b"tar")).unwrap_or(last);
    name.get(first..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_are_those_that_programs_recognise() {
        let cases = [
            ("report.pdf", ".pdf"),
            ("linux.tar.gz", ".tar.gz"),
            ("a.b.c", ".c"),
            ("hosts", ""),
            (".bashrc", ""),
            ("name.", ""),
            ("x.with space", ""),
            ("x.averyveryverylongending", ""),
        ];
        for (name, wanted) in cases {
            assert_eq!(ending(name.as_bytes()), wanted.as_bytes(), "{name}");
        }
    }
}
