//! Downloads a file from the hub into the cache. A download resumes where an earlier attempt
//! ended, and the file gets its final name only once its hash has been verified.

use super::{
    id::Repo,
    remote::{Announced, Failure, Remote},
};
use hf_hub::Cache;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use sparsellm_base::{Error, Event, Observer, Result, input_error};
use sparsellm_checkpoint::hex;
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// How many consecutive attempts may make no progress.
const ATTEMPTS: u32 = 5;
/// The pause after the first such attempt; it doubles each time.
const PAUSE: Duration = Duration::from_millis(250);
const BUFFER: usize = 1 << 17;

/// Downloads a file of a repository, pinned to a commit, into the cache. Returns its path in
/// the snapshot.
pub(super) fn file(
    remote: &Remote,
    cache: &Cache,
    repo: &Repo,
    file: &str,
    announced: &Announced,
    observe: &mut Observer,
) -> Result<PathBuf> {
    let entry = cache.repo(repo.hub());
    let blob = entry.blob_path(&announced.etag);
    let snapshot = entry.pointer_path(&repo.revision).join(file);
    let locks = cache.path().join(".locks").join(repo.hub().folder_name());
    for folder in [blob.parent(), snapshot.parent(), Some(&*locks)].into_iter().flatten() {
        fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    }
    let _lock = lock(&locks.join(format!("{}.lock", announced.etag)), file, observe)?;
    if fs::metadata(&blob).is_ok_and(|found| found.len() == announced.size) {
        link(&blob, &snapshot)?;
        return Ok(snapshot);
    }
    let partial = blob.with_extension("incomplete");
    receive(remote, repo, file, announced.size, &partial, observe)?;
    let found = hash(&partial, announced).map_err(|e| Error::io(&partial, e))?;
    if found != announced.etag {
        fs::remove_file(&partial).map_err(|e| Error::io(&partial, e))?;
        return input_error!(
            "{}: {file} arrived damaged: its hash is {found}, but the hub announced {}; it was deleted: run the command again, and if that does not help, something on the way (a proxy, HF_ENDPOINT) changes files",
            repo.id,
            announced.etag
        );
    }
    fs::rename(&partial, &blob).map_err(|e| Error::io(&blob, e))?;
    link(&blob, &snapshot)?;
    Ok(snapshot)
}

/// The lock that Python's `huggingface_hub` takes for the same file.
fn lock(path: &Path, file: &str, observe: &mut Observer) -> Result<File> {
    let fail = |e| Error::io(path, e);
    let lock = File::create(path).map_err(fail)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::Error(e)) => return Err(fail(e)),
        Err(TryLockError::WouldBlock) => {
            let what = format!("{file}: waiting for another download of it to end");
            observe.notify(Event::Warning(what))?;
            lock.lock().map_err(fail)?;
        }
    }
    Ok(lock)
}

/// Continues to fill `partial` until it has `size` bytes.
fn receive(
    remote: &Remote,
    repo: &Repo,
    file: &str,
    size: u64,
    partial: &Path,
    observe: &mut Observer,
) -> Result<()> {
    let fail = |e| Error::io(partial, e);
    let mut out = OpenOptions::new().append(true).create(true).open(partial).map_err(fail)?;
    let mut done = out.metadata().map_err(fail)?.len();
    let mut buffer = vec![0; BUFFER];
    let mut fruitless = 0;
    while done != size {
        let from = if done > size { 0 } else { done };
        let failure = match remote.bytes(repo, file, from) {
            Err(Failure::Refused(error)) => return Err(error),
            Err(Failure::Passing(error)) => error,
            Ok((body, start)) => {
                if start != done {
                    // The server starts over, or elsewhere, which the hash check will
                    // reveal.
                    out.set_len(0).map_err(fail)?;
                    done = 0;
                }
                let mut body = body.take(size - done);
                loop {
                    observe.notify(Event::Download { file, done, of: size })?;
                    match body.read(&mut buffer) {
                        Ok(0) => break,
                        Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                        Err(_) => break,
                        Ok(n) => {
                            out.write_all(&buffer[..n]).map_err(fail)?;
                            done += n as u64;
                        }
                    }
                }
                Error::Input(format!(
                    "{}: the connection broke at byte {done} of {size} of {file}, and again when tried anew; what has arrived is kept: run the command again to go on from there",
                    repo.id
                ))
            }
        };
        fruitless = if done > from { 0 } else { fruitless + 1 };
        if fruitless == ATTEMPTS {
            return Err(failure);
        }
        if done < size {
            thread::sleep(PAUSE * 2u32.pow(fruitless));
        }
    }
    out.sync_all().map_err(fail)
}

/// Computes the hash of a file, of the same kind as the announced one.
fn hash(path: &Path, announced: &Announced) -> io::Result<String> {
    fn of<D: Digest + Write>(mut hasher: D, path: &Path) -> io::Result<String> {
        io::copy(&mut File::open(path)?, &mut hasher)?;
        Ok(hex(&hasher.finalize()))
    }
    match announced.etag.len() {
        64 => of(Sha256::new(), path),
        // The file's Git blob id.
        _ => of(Sha1::new_with_prefix(format!("blob {}\0", announced.size)), path),
    }
}

/// Makes the path `snapshot` lead to `blob`, as Python's `huggingface_hub` does: by a
/// relative link, or by moving the file if the file system has no links.
fn link(blob: &Path, snapshot: &Path) -> Result<()> {
    let fail = |e| Error::io(snapshot, e);
    if fs::symlink_metadata(snapshot).is_ok() {
        fs::remove_file(snapshot).map_err(fail)?;
    }
    #[cfg(unix)]
    if let Some(up) = relative(blob, snapshot)
        && std::os::unix::fs::symlink(up, snapshot).is_ok()
    {
        return Ok(());
    }
    fs::rename(blob, snapshot).map_err(fail)
}

/// The relative path from the folder of `from` to `to`, through their common ancestor.
#[cfg(unix)]
fn relative(to: &Path, from: &Path) -> Option<PathBuf> {
    let folder = from.parent()?;
    let (common, ups) = folder.ancestors().zip(0..).find(|(a, _)| to.starts_with(a))?;
    let mut path: PathBuf = std::iter::repeat_n("..", ups).collect();
    path.push(to.strip_prefix(common).ok()?);
    Some(path)
}
