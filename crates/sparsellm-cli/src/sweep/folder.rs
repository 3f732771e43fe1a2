//! The output folder of a sweep, which holds the results of its finished runs.

use crate::context::json_text;
use serde::{Serialize, de::DeserializeOwned};
use sparsellm::{Error, Result};
use sparsellm_checkpoint::PARTIAL;
use sparsellm_report::Sweep;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The subfolder that holds the results of finished runs, one file each.
const DONE: &str = "runs";

/// A sweep's output folder.
pub struct Folder(PathBuf);

impl Folder {
    /// The folder's path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Creates the folder, or opens one that an earlier sweep has created.
    ///
    /// # Errors
    /// If the folder holds something other than a sweep, or cannot be read or written.
    pub fn open(path: &Path) -> Result<Folder> {
        let fail = |e| Error::io(path, e);
        let known = path.join(DONE);
        if !known.is_dir() {
            if path.exists() && fs::read_dir(path).map_err(fail)?.next().is_some() {
                return Err(Error::Input(format!(
                    "{}: the folder holds something else than a sweep; choose another --output",
                    path.display()
                )));
            }
            fs::create_dir_all(&known).map_err(fail)?;
        }
        // Remove the temporary files that a killed sweep has left behind.
        for folder in [path, &known] {
            let fail = |e| Error::io(folder, e);
            for entry in fs::read_dir(folder).map_err(fail)? {
                let entry = entry.map_err(fail)?.path();
                let name = entry.file_name().unwrap_or_default().to_string_lossy();
                if name.starts_with(PARTIAL) {
                    let removed = match entry.is_dir() {
                        true => fs::remove_dir_all(&entry),
                        false => fs::remove_file(&entry),
                    };
                    removed.map_err(|e| Error::io(&entry, e))?;
                }
            }
        }
        Ok(Folder(path.into()))
    }

    /// Creates a temporary folder, for a pruned checkpoint that is measured and then removed.
    pub fn temporary(&self) -> Result<tempfile::TempDir> {
        let made = tempfile::Builder::new().prefix(PARTIAL).tempdir_in(&self.0);
        made.map_err(|e| Error::io(&self.0, e))
    }

    /// Reads the result stored under this digest, or else calls `find_out` and stores what it
    /// returns. The flag is true if the result was stored before.
    pub fn recall<T: Serialize + DeserializeOwned>(
        &self,
        digest: &str,
        find_out: impl FnOnce() -> Result<T>,
    ) -> Result<(T, bool)> {
        let path = self.0.join(DONE).join(format!("{digest}.json"));
        if let Ok(text) = fs::read_to_string(&path) {
            match serde_json::from_str(&text) {
                Ok(found) => return Ok((found, true)),
                Err(e) => eprintln!("warning: {}: {e}; it is computed again", path.display()),
            }
        }
        let found = find_out()?;
        sparsellm_report::write(&path, &json_text(&found)?)?;
        Ok((found, false))
    }

    /// Writes the reports of all results so far.
    pub fn report(&self, sweep: &Sweep) -> Result<()> {
        for (name, text) in [
            ("results.csv", sparsellm_report::csv(sweep)),
            ("results.json", json_text(sweep)?),
            ("report.md", sparsellm_report::markdown(sweep)),
            ("report.html", sparsellm_report::html(sweep)),
        ] {
            sparsellm_report::write(&self.0.join(name), &text)?;
        }
        Ok(())
    }
}
