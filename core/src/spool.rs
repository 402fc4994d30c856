//! Nameless files for data that is too long for memory: whatever happens, they leave nothing behind.

use std::fs;
use std::fs::File;
use std::path::Path;

use crate::crypto::random;
use crate::error::Error;
use crate::error::Result;
use crate::id::hex;
use crate::private;

/// A new file in `dir` that no other process can find.
pub fn create(dir: &Path) -> Result<File> {
    let path = dir.join(format!("spool-{}", hex(&random::<8>()?)));
    let local = |doing| {
        let path = path.display().to_string();
        move |source| Error::Local { doing, path, source }
    };
    let open = private::file_options().create_new(true).open(&path);
    let file = open.map_err(local("make the spool file"))?;
    fs::remove_file(&path).map_err(local("unlink the spool file"))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::io::Seek;
    use std::io::Write;

    #[test]
    fn a_spool_has_no_name_and_keeps_what_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = create(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        file.write_all(b"abc").unwrap();
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
        assert!(matches!(create(&dir.path().join("absent")), Err(Error::Local { .. })));
    }
}
