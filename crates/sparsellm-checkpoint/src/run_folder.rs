//! The working folder of a run: hidden, beside the output, and present until the run has
//! finished. It holds what a later run needs to resume after a crash:
//!
//! ```text
//! .sparsellm-partial-NAME/
//!   lock           held by the process that works here
//!   run.json       what decides the result: settings and digests
//!   layers.jsonl   a line per finished layer; its weights reach the disk before it does
//!   checkpoint/    becomes NAME in the end
//!   replaced/      what NAME was before, between two renames
//! ```

use crate::json::read_json;
use serde_json::Value;
use sparsellm_base::{Error, Result, input_error, usage_error};
use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io::Write,
    path::{Path, PathBuf},
};

/// The name prefix of unfinished folders.
pub const PARTIAL: &str = ".sparsellm-partial-";

/// The run's record in the output folder. Its presence marks a folder that may be replaced.
pub const RECORD: &str = "sparsellm.json";

/// The human-readable report in the output folder.
pub const REPORT: &str = "report.html";

/// The file with one line per finished layer.
const LAYERS: &str = "layers.jsonl";
/// The folder into which the checkpoint is written.
const CHECKPOINT: &str = "checkpoint";

/// What to do with the remains of an earlier run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Existing {
    /// Replace an earlier result, and discard an unfinished run.
    pub replace: bool,
    /// Resume an unfinished run.
    pub resume: bool,
}

/// The open folder of a run. When dropped, it is removed unless a layer is finished.
pub struct RunFolder {
    path: PathBuf,
    /// The lock, released when the file is closed, however the process ends.
    _lock: File,
    layers: File,
    done: Vec<Value>,
}

impl RunFolder {
    /// Resumes in the folder of an unfinished run, or creates a new one. `run` holds
    /// everything that determines the result.
    ///
    /// # Errors
    /// Returns an error if another process works there, an unfinished run may be neither
    /// resumed nor discarded, or the unfinished run differs from this one.
    pub fn open(output: &Path, run: &Value, existing: Existing) -> Result<RunFolder> {
        let path = partial(output)?;
        let parent = folder_of(output);
        fs::create_dir_all(parent).map_err(|e| Error::io(parent, e))?;
        match fs::create_dir(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Error::io(&path, e));
            }
            _ => {}
        }
        let lock = lock(&path, output)?;
        restore(&path, output)?;
        let done = finished_layers(&path)?;
        if done.is_empty() || (existing.replace && !existing.resume) {
            return RunFolder::new(path, lock, run);
        }
        if !existing.resume {
            return input_error!(
                "{}: an unfinished run has {} layers done; go on with `resume`, or discard them with `force`",
                path.display(),
                done.len()
            );
        }
        same_run(&path, run)?;
        let layers_path = path.join(LAYERS);
        let layers = OpenOptions::new().append(true).open(&layers_path);
        let layers = layers.map_err(|e| Error::io(&layers_path, e))?;
        Ok(RunFolder { path, _lock: lock, layers, done })
    }

    /// Empties the folder and starts a new run.
    fn new(path: PathBuf, lock: File, run: &Value) -> Result<RunFolder> {
        let layers_path = path.join(LAYERS);
        // Truncate the layer lines first, because they are what makes a run resumable.
        let layers = File::create(&layers_path).map_err(|e| Error::io(&layers_path, e));
        let folder = RunFolder { layers: layers?, _lock: lock, done: Vec::new(), path };
        let checkpoint = folder.checkpoint();
        for old in [folder.path.join("replaced"), checkpoint.clone()] {
            if old.exists() {
                fs::remove_dir_all(&old).map_err(|e| Error::io(&old, e))?;
            }
        }
        fs::create_dir(&checkpoint).map_err(|e| Error::io(&checkpoint, e))?;
        write_file(&folder.path.join("run.json"), format!("{run:#}\n").as_bytes())?;
        sync_folder(&folder.path)?;
        Ok(folder)
    }

    /// The folder into which the checkpoint is written.
    pub fn checkpoint(&self) -> PathBuf {
        self.path.join(CHECKPOINT)
    }

    /// The records of the finished layers, in order.
    pub fn done(&self) -> &[Value] {
        &self.done
    }

    /// Records that a layer is finished. Its weights must already be on disk.
    pub fn record(&mut self, layer: Value) -> Result<()> {
        let line = format!("{layer}\n");
        let written = self.layers.write_all(line.as_bytes());
        written
            .and_then(|()| self.layers.sync_data())
            .map_err(|e| Error::io(self.path.join(LAYERS), e))?;
        self.done.push(layer);
        Ok(())
    }

    /// Moves the finished checkpoint to its final place. An old one is moved aside first and
    /// removed last, so that a crash in between loses neither.
    pub fn publish(mut self, output: &Path, replace: bool) -> Result<()> {
        sync_folder(&self.checkpoint())?;
        if replace && fs::symlink_metadata(output).is_ok() {
            let aside = self.path.join("replaced");
            fs::rename(output, aside).map_err(|e| Error::io(output, e))?;
        }
        if let Err(e) = fs::rename(self.checkpoint(), output) {
            restore(&self.path, output)?;
            return Err(Error::io(output, e));
        }
        sync_folder(folder_of(output))?;
        self.done.clear(); // nothing to go on with: the folder goes
        Ok(())
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        if self.done.is_empty() {
            // If anything remains, the next run for this output removes it.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// The path of the hidden folder for an output.
fn partial(output: &Path) -> Result<PathBuf> {
    let Some(name) = output.file_name() else {
        return usage_error!("`output` {}: the path must end in a folder's name", output.display());
    };
    let mut hidden = OsString::from(PARTIAL);
    hidden.push(name);
    Ok(folder_of(output).join(hidden))
}

/// The path of an output's checkpoint while it is being written.
pub fn checkpoint_of(output: &Path) -> Result<PathBuf> {
    Ok(partial(output)?.join(CHECKPOINT))
}

fn lock(folder: &Path, output: &Path) -> Result<File> {
    let path = folder.join("lock");
    let file = match File::create(&path) {
        Ok(file) => file,
        Err(e) => {
            let _ = fs::remove_dir(folder); // if it is empty: it was just made
            return Err(Error::io(&path, e));
        }
    };
    match file.try_lock() {
        Ok(()) => Ok(file),
        // Proceed unlocked on a file system that has no locks.
        Err(TryLockError::Error(_)) => Ok(file),
        Err(TryLockError::WouldBlock) => input_error!(
            "{}: another sparsellm is writing this output; wait for it, or choose another `output`",
            output.display()
        ),
    }
}

/// Restores what a crash between the two renames of `publish` left aside.
fn restore(folder: &Path, output: &Path) -> Result<()> {
    let aside = folder.join("replaced");
    if fs::symlink_metadata(&aside).is_ok() && fs::symlink_metadata(output).is_err() {
        fs::rename(&aside, output).map_err(|e| Error::io(output, e))?;
    }
    Ok(())
}

/// Reads the finished layers' lines, cutting off an incomplete last line left by a crash.
/// Returns no lines if there is no checkpoint, because it was finished and renamed.
fn finished_layers(folder: &Path) -> Result<Vec<Value>> {
    let path = folder.join(LAYERS);
    let bytes = match fs::read(&path) {
        Ok(bytes) if folder.join(CHECKPOINT).is_dir() => bytes,
        _ => return Ok(Vec::new()),
    };
    let (mut layers, mut end) = (Vec::new(), 0);
    for line in bytes.split_inclusive(|b| *b == b'\n').filter(|l| l.ends_with(b"\n")) {
        let Ok(layer) = serde_json::from_slice(line) else { break };
        layers.push(layer);
        end += line.len();
    }
    if end < bytes.len() {
        let file = OpenOptions::new().write(true).open(&path);
        file.and_then(|f| f.set_len(end as u64)).map_err(|e| Error::io(&path, e))?;
    }
    Ok(layers)
}

/// Returns an error that lists the differences unless the folder belongs to this same run.
fn same_run(folder: &Path, run: &Value) -> Result<()> {
    let path = folder.join("run.json");
    let earlier = read_json(&path)?;
    let differences = differences(&earlier, run);
    if differences.is_empty() {
        return Ok(());
    }
    input_error!(
        "{}: cannot resume, because the unfinished run is another one: {}; ask for the same again, or discard it with `force`",
        folder.display(),
        differences.join(", ")
    )
}

/// The differences between two runs, such as
/// `settings.method was "wanda" and is "sparsegpt"`.
fn differences(earlier: &Value, now: &Value) -> Vec<String> {
    fn compare(at: &str, earlier: &Value, now: &Value, found: &mut Vec<String>) {
        if let (Value::Object(a), Value::Object(b)) = (earlier, now) {
            for key in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
                let inner = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned();
                let (a, b) = (of(a).unwrap_or_default(), of(b).unwrap_or_default());
                compare(&inner, &a, &b, found);
            }
        } else if earlier != now {
            found.push(format!("{at} was {earlier} and is {now}"));
        }
    }
    let mut found = Vec::new();
    compare("", earlier, now, &mut found);
    found
}

/// The record in `output`, if it is the finished checkpoint of `run`.
pub fn finished_record(output: &Path, run: &Value) -> Option<Value> {
    let record = read_json(&output.join(RECORD)).ok()?;
    let same = run.as_object()?.iter().all(|(key, value)| record.get(key) == Some(value));
    if !same {
        return None;
    }
    // A crash after the last rename leaves the hidden folder behind, without a checkpoint.
    let folder = partial(output).ok()?;
    if folder.is_dir() && !folder.join(CHECKPOINT).exists() {
        let _ = fs::remove_dir_all(folder);
    }
    Some(record)
}

/// The number of layers that an unfinished run for `output` has finished.
pub fn unfinished(output: &Path) -> usize {
    let layers = partial(output).and_then(|folder| finished_layers(&folder));
    layers.map_or(0, |layers| layers.len())
}

/// The folder that contains `path`.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Writes a file, and returns once its bytes are on disk.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let fail = |e| Error::io(path, e);
    let mut file = File::create(path).map_err(fail)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(fail)
}

/// Makes the names in a folder durable: they survive a power cut once this returns.
pub(crate) fn sync_folder(path: &Path) -> Result<()> {
    #[cfg(unix)]
    File::open(path).and_then(|folder| folder.sync_all()).map_err(|e| Error::io(path, e))?;
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    const RESUME: Existing = Existing { replace: false, resume: true };

    fn fails(result: Result<RunFolder>) -> String {
        result.err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn an_unfinished_run_is_neither_lost_nor_mistaken_for_another() {
        let temp = tempfile::tempdir().unwrap();
        let output = temp.path().join("out");
        let run = json!({"settings": {"method": "wanda", "damping": 0.01, "layers": null}});
        let mut folder = RunFolder::open(&output, &run, Existing::default()).unwrap();
        assert!(fails(RunFolder::open(&output, &run, RESUME)).contains("another sparsellm"));
        folder.record(json!({"index": 0})).unwrap();
        folder.record(json!({"index": 1})).unwrap();
        drop(folder);
        // Simulate a crash in the middle of a line.
        let hidden = partial(&output).unwrap();
        let whole = fs::read(hidden.join("layers.jsonl")).unwrap();
        fs::write(hidden.join("layers.jsonl"), [&whole[..], b"{\"index\": 2"].concat()).unwrap();

        let said = fails(RunFolder::open(&output, &run, Existing::default()));
        assert!(said.contains("2 layers done") && said.contains("`resume`"), "{said}");
        let other = json!({"settings": {"method": "wanda", "damping": 0.1, "bits": 4}});
        let said = fails(RunFolder::open(&output, &other, RESUME));
        for difference in
            ["settings.bits was null and is 4", "settings.damping was 0.01 and is 0.1"]
        {
            assert!(said.contains(difference), "{said}");
        }
        let folder = RunFolder::open(&output, &run, RESUME).unwrap();
        assert_eq!(folder.done(), [json!({"index": 0}), json!({"index": 1})]);
        assert_eq!(fs::read(hidden.join("layers.jsonl")).unwrap(), whole);
        folder.publish(&output, false).unwrap();
        assert!(output.is_dir() && !hidden.exists());
    }

    #[test]
    fn what_is_replaced_comes_back_after_a_crash_between_the_renames() {
        let temp = tempfile::tempdir().unwrap();
        let output = temp.path().join("out");
        let mut folder = RunFolder::open(&output, &json!({}), Existing::default()).unwrap();
        folder.record(json!({})).unwrap();
        fs::create_dir(folder.path.join("replaced")).unwrap();
        fs::write(folder.path.join("replaced/old"), "old").unwrap();
        drop(folder);
        let folder = RunFolder::open(&output, &json!({}), RESUME).unwrap();
        assert_eq!(fs::read_to_string(output.join("old")).unwrap(), "old");
        // An output that may not be replaced is kept, even if it appeared during the run.
        assert!(folder.publish(&output, false).is_err());
        assert_eq!(fs::read_to_string(output.join("old")).unwrap(), "old");
        let folder = RunFolder::open(&output, &json!({}), RESUME).unwrap();
        folder.publish(&output, true).unwrap();
        assert_eq!(fs::read_dir(&output).unwrap().count(), 0);
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
    }

    #[test]
    fn without_a_finished_layer_nothing_stays() {
        let temp = tempfile::tempdir().unwrap();
        let output = temp.path().join("a/out");
        drop(RunFolder::open(&output, &json!({}), RESUME).unwrap());
        assert_eq!(fs::read_dir(temp.path().join("a")).unwrap().count(), 0);
        assert!(fails(RunFolder::open(Path::new("/"), &json!({}), RESUME)).contains("`output`"));
    }
}
