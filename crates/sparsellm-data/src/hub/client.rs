//! The user-facing interface to the hub.

use super::{
    download,
    id::{Repo, stays_inside},
    remote::{Failure, Remote, is_commit},
};
use hf_hub::{Cache, RepoType};
use serde_json::Value;
use sparsellm_base::{Error, Event, Observer, Result, input_error, usage_error};
use sparsellm_checkpoint::{PYTORCH, SAFETENSORS, read_json, weight_files};
use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// The files besides the weights that define a checkpoint folder's model and tokenizer.
const COMPANIONS: [&str; 10] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
];
/// Lower-case prefixes of the names of licences and similar notices.
const NOTICES: [&str; 5] = ["licen", "readme", "notice", "use_policy", "use-policy"];

/// The hub, and the local cache of files downloaded from it.
pub struct Hub {
    remote: Remote,
    cache: Cache,
    offline: bool,
}

impl Hub {
    /// Creates the hub that the environment describes, as for Python's `huggingface_hub`:
    /// `HF_ENDPOINT`, `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN` (or `$HF_HOME/token`) and
    /// `HF_HUB_OFFLINE`. `offline` forbids all network access regardless of the environment.
    /// This touches neither the network nor the cache.
    pub fn from_env(offline: bool) -> Hub {
        let home = folder("HF_HOME").unwrap_or_else(|| {
            let cache = folder("XDG_CACHE_HOME")
                .or_else(|| Some(env::home_dir()?.join(".cache")))
                .unwrap_or_else(env::temp_dir);
            cache.join("huggingface")
        });
        let cache = folder("HF_HUB_CACHE").unwrap_or_else(|| home.join("hub"));
        let token = variable("HF_TOKEN").or_else(|| {
            let path = folder("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
            let token = fs::read_to_string(path).ok()?.trim().to_string();
            (!token.is_empty()).then_some(token)
        });
        let says_offline = variable("HF_HUB_OFFLINE")
            .is_some_and(|v| ["1", "ON", "YES", "TRUE"].contains(&v.to_uppercase().as_str()));
        Hub {
            remote: Remote::new(variable("HF_ENDPOINT"), token),
            cache: Cache::new(cache),
            offline: offline || says_offline,
        }
    }

    /// Returns the folder of the model `id` (`org/name`, optionally with `@revision`), with
    /// everything that a checkpoint needs, downloading what the cache lacks. Before any
    /// weights are fetched, `accept` is called with the contents and the path of the hub's
    /// `config.json`, so that an unsupported model is rejected before gigabytes are
    /// downloaded. `observe` is told of the progress.
    ///
    /// # Errors
    /// Returns an error if the hub refuses access or has no such model, if the data differ
    /// from what the hub announced, or if there is no network and the cache lacks a file; and
    /// any error of `accept` and `observe`. What has arrived by then is kept, and a later
    /// call resumes from there.
    pub fn model(
        &self,
        id: &str,
        accept: &dyn Fn(&Value, &Path) -> Result<()>,
        observe: &mut Observer,
    ) -> Result<PathBuf> {
        let repo = Repo::parse(id, RepoType::Model)?;
        if self.offline {
            return self.cached_model(&repo);
        }
        let listing = match self.remote.listing(&repo) {
            Ok(listing) => listing,
            Err(Failure::Refused(error)) => return Err(error),
            // Without a network, use what is already in the cache.
            Err(Failure::Passing(error)) => {
                let Ok(folder) = self.cached_model(&repo) else { return Err(error) };
                observe.notify(Event::Warning(format!(
                    "{error}; using what the cache holds of {id}"
                )))?;
                return Ok(folder);
            }
        };
        let has = |name: &str| listing.files.iter().any(|file| file == name);
        if !has("config.json") {
            let hint = match listing.files.iter().any(|file| file.ends_with(".gguf")) {
                true => "it holds .gguf files: download one of them and give its path",
                false => "give a model in the format of transformers",
            };
            return input_error!(
                "{id}: not a model that can be read: it has no config.json; {hint}"
            );
        }
        let layout = [SAFETENSORS, PYTORCH].into_iter().find(|l| has(l.single) || has(l.index));
        let Some(layout) = layout else {
            return input_error!(
                "{id}: no weights: it has no {} or {} (nor their .index.json)",
                SAFETENSORS.single,
                PYTORCH.single
            );
        };
        // Use one commit throughout, even if the branch moves on meanwhile.
        let pinned = repo.at(&listing.commit);
        let mut fetch = |file: &str| self.fetch(&pinned, file, observe);
        let config = fetch("config.json")?;
        accept(&read_json(&config)?, &config)?;
        for file in listing.files.iter().filter(|file| is_companion(file)) {
            fetch(file)?;
        }
        if has(layout.single) {
            fetch(layout.single)?;
        } else {
            for shard in layout.shards(&fetch(layout.index)?)? {
                fetch(&shard)?;
            }
        }
        // Do this last, so that the commit recorded for the branch is always complete.
        self.remember(&repo, &listing.commit, "config.json")?;
        Ok(config.parent().map(Path::to_path_buf).unwrap_or_default())
    }

    /// Lists the paths of all files in the data set `id`; offline, only of those in the
    /// cache.
    ///
    /// # Errors
    /// Returns an error if the hub refuses access, has no such data set, or cannot be
    /// reached; offline, if the cache holds nothing of it.
    pub fn dataset_files(&self, id: &str) -> Result<Vec<String>> {
        let repo = Repo::parse(id, RepoType::Dataset)?;
        if !self.offline {
            return Ok(self.remote.listing(&repo)?.files);
        }
        let mut files = Vec::new();
        if let Some(snapshot) = self.cached(&repo, "") {
            walk(&snapshot, "", &mut files)?;
        }
        match files.is_empty() {
            true => Err(self.not_cached(&repo)),
            false => Ok(files),
        }
    }

    /// Returns the path of the file at `path` in the data set `id`, downloading it if the
    /// cache lacks it.
    ///
    /// # Errors
    /// Fails as [`Hub::model`] does.
    pub fn dataset_file(&self, id: &str, path: &str, observe: &mut Observer) -> Result<PathBuf> {
        let repo = Repo::parse(id, RepoType::Dataset)?;
        if !stays_inside(path) {
            return usage_error!("{path}: not the path of a file in {id}");
        }
        let cached = self.cached(&repo, path);
        if self.offline {
            return cached.ok_or_else(|| self.not_cached_file(&repo, path));
        }
        let announced = match (self.remote.announced(&repo, path), cached) {
            (Ok(announced), _) => announced,
            (Err(Failure::Passing(error)), Some(cached)) => {
                observe.notify(Event::Warning(format!(
                    "{error}; using the {path} that is in the cache"
                )))?;
                return Ok(cached);
            }
            (Err(failure), _) => return Err(failure.into()),
        };
        let pinned = repo.at(&announced.commit);
        let file = match self.cached(&pinned, path) {
            Some(file) => file,
            None => download::file(&self.remote, &self.cache, &pinned, path, &announced, observe)?,
        };
        self.remember(&repo, &announced.commit, path)?;
        Ok(file)
    }

    /// Fetches a file of a repository pinned to a commit.
    fn fetch(&self, repo: &Repo, file: &str, observe: &mut Observer) -> Result<PathBuf> {
        if let Some(path) = self.cached(repo, file) {
            return Ok(path);
        }
        let announced = self.remote.announced(repo, file)?;
        download::file(&self.remote, &self.cache, repo, file, &announced, observe)
    }

    /// The file in the cache's snapshot of the repository, if it is there.
    fn cached(&self, repo: &Repo, file: &str) -> Option<PathBuf> {
        let cache = self.cache.repo(repo.hub());
        if !is_commit(&repo.revision) {
            return cache.get(file);
        }
        Some(cache.pointer_path(&repo.revision).join(file)).filter(|path| path.exists())
    }

    /// Records the commit that the branch or tag points to. A cache that already has it is
    /// left alone, since it may be read-only.
    fn remember(&self, repo: &Repo, commit: &str, file: &str) -> Result<()> {
        let known = self.cached(repo, file);
        if repo.revision == commit || known == self.cached(&repo.at(commit), file) {
            return Ok(());
        }
        let cache = self.cache.repo(repo.hub());
        cache.create_ref(commit).map_err(|e| Error::io(self.folder(repo).join("refs"), e))
    }

    /// The model's folder, if the cache holds all its weights.
    fn cached_model(&self, repo: &Repo) -> Result<PathBuf> {
        let Some(config) = self.cached(repo, "config.json") else {
            return Err(self.not_cached(repo));
        };
        let folder = config.parent().map(Path::to_path_buf).unwrap_or_default();
        let weights = match weight_files(&folder, &SAFETENSORS)? {
            Some(names) => names,
            None => match weight_files(&folder, &PYTORCH)? {
                Some(names) => names,
                None => return Err(self.not_cached_file(repo, SAFETENSORS.single)),
            },
        };
        match weights.iter().find(|name| !folder.join(name).is_file()) {
            Some(missing) => Err(self.not_cached_file(repo, missing)),
            None => Ok(folder),
        }
    }

    fn folder(&self, repo: &Repo) -> PathBuf {
        self.cache.path().join(repo.hub().folder_name())
    }

    fn not_cached(&self, repo: &Repo) -> Error {
        Error::Input(format!(
            "{}: no such file or folder here, nor is it ({}) in the hub's cache {}, and `offline` or HF_HUB_OFFLINE forbids to download it; run once without them, or point HF_HOME to the cache that has it",
            repo.id,
            repo.revision,
            self.cache.path().display()
        ))
    }

    fn not_cached_file(&self, repo: &Repo, file: &str) -> Error {
        Error::Input(format!(
            "{}: {file} ({}) is not in the hub's cache {}, and `offline` or HF_HUB_OFFLINE forbids to download it; run once without them",
            repo.id,
            repo.revision,
            self.folder(repo).display()
        ))
    }
}

/// The value of an environment variable, if it is set and not empty.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().map(|v| v.trim().to_string()).filter(|v| !v.is_empty())
}

fn folder(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from)
}

fn is_companion(file: &str) -> bool {
    let lower = file.to_lowercase();
    COMPANIONS.contains(&file)
        || !file.contains(['/', '\\']) && NOTICES.iter().any(|start| lower.starts_with(start))
}

/// Collects the paths of all files under `folder`, sorted.
fn walk(folder: &Path, prefix: &str, files: &mut Vec<String>) -> Result<()> {
    let mut entries: Vec<_> = fs::read_dir(folder)
        .and_then(|entries| entries.collect())
        .map_err(|e| Error::io(folder, e))?;
    entries.sort_by_key(|entry| entry.file_name());
    for entry in entries {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&entry.path(), &format!("{name}/"), files)?,
            _ => files.push(name),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_in_a_repository_stay_in_it() {
        assert!(["a", "data/train.parquet", "..a/b"].iter().all(|path| stays_inside(path)));
        for path in ["", "/a", "..", "../a", "a/../../b", "a\\..\\b"] {
            assert!(!stays_inside(path), "{path}");
        }
        assert!(is_companion("LICENSE.txt") && !is_companion("../README.md"));
    }
}
