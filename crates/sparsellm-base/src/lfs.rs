//! Recognizes git-lfs pointers: small texts that take the place of large files in a
//! repository, and all that a clone has of them if git-lfs was not installed.

use crate::{Result, input_error};
use std::{fs::File, io::Read, path::Path};

/// The first words of a pointer: of the current specification, and of two earlier ones.
const SPECIFICATIONS: [&[u8]; 3] = [
    b"version https://git-lfs.github.com/spec/",
    b"version https://hawser.github.com/spec/",
    b"version http://git-media.io/v/",
];

/// More bytes than the longest of [`SPECIFICATIONS`].
const BEGINNING: u64 = 64;

/// Returns an error if the file at `path` is a git-lfs pointer. If the file cannot be read,
/// that is left for its own reader to report.
///
/// # Errors
/// Returns an error that names the file and says how to get its contents.
pub fn refuse_lfs_pointer(path: &Path) -> Result<()> {
    let mut beginning = Vec::new();
    let read = File::open(path).and_then(|f| f.take(BEGINNING).read_to_end(&mut beginning));
    if read.is_ok() && SPECIFICATIONS.iter().any(|first| beginning.starts_with(first)) {
        return input_error!(
            "{}: this is a git-lfs pointer, not the file itself; run `git lfs pull` in its repository, or download the file",
            path.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_told_from_any_other_file() {
        let path = std::env::temp_dir().join(format!("lfs-pointer-{}", std::process::id()));
        let told = |bytes: &[u8]| {
            assert!(std::fs::write(&path, bytes).is_ok());
            refuse_lfs_pointer(&path).err().map(|error| error.to_string())
        };
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d4d\nsize 12\n";
        let said = told(pointer).unwrap_or_default();
        assert!(said.contains("git-lfs pointer") && said.contains("git lfs pull"), "{said}");
        assert_eq!(told(b"version https://example.com\n"), None);
        assert_eq!(told(b""), None);
        assert!(std::fs::remove_file(&path).is_ok());
        assert!(refuse_lfs_pointer(&path).is_ok());
    }
}
