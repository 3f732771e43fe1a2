//! Ids of models and data sets on the hub: `org/name` or `name`, optionally with `@revision`.

use hf_hub::RepoType;
use sparsellm_base::{Result, usage_error};
use std::path::{Component, Path};

/// Names with these endings are files, never ids.
const FILE_EXTENSIONS: [&str; 9] =
    [".gguf", ".safetensors", ".bin", ".json", ".jsonl", ".txt", ".raw", ".npy", ".parquet"];

/// Whether `text` has the form of a hub id (`org/name` or `name`, optionally with
/// `@revision`) and nothing exists at that path.
pub fn is_id(text: &str) -> bool {
    parts(text).is_some() && !Path::new(text).exists()
}

/// Splits `id@revision` into id and revision.
fn parts(text: &str) -> Option<(&str, &str)> {
    let (id, revision) = text.split_once('@').unwrap_or((text, "main"));
    let plain = |name: &str, also: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || also.contains(c);
        !name.is_empty() && name.chars().all(known) && !name.contains("..")
    };
    let is_name = |name: &str| {
        let odd = name.starts_with(['.', '-']) || name.ends_with(['.', '-']) || name.contains("--");
        plain(name, "._-") && name.len() <= 96 && !odd
    };
    let lower = id.to_lowercase();
    let good = id.split('/').count() <= 2
        && id.split('/').all(is_name)
        && revision.split('/').all(|part| plain(part, "._-+") && part != ".")
        && !FILE_EXTENSIONS.iter().any(|extension| lower.ends_with(extension));
    good.then_some((id, revision))
}

/// A repository at a revision.
pub(super) struct Repo {
    pub id: String,
    pub kind: RepoType,
    pub revision: String,
}

impl Repo {
    pub fn parse(text: &str, kind: RepoType) -> Result<Repo> {
        match parts(text) {
            Some((id, revision)) => Ok(Repo { id: id.into(), kind, revision: revision.into() }),
            None => usage_error!(
                "{text}: not an id of the hub; give org/name or org/name@revision, e.g. HuggingFaceTB/SmolLM2-135M"
            ),
        }
    }

    pub fn at(&self, revision: &str) -> Repo {
        Repo { id: self.id.clone(), kind: self.kind, revision: revision.into() }
    }

    pub fn hub(&self) -> hf_hub::Repo {
        hf_hub::Repo::with_revision(self.id.clone(), self.kind, self.revision.clone())
    }
}

/// Whether a path in a repository stays inside it.
pub(super) fn stays_inside(path: &str) -> bool {
    let mut parts = Path::new(path).components().peekable();
    parts.peek().is_some()
        && parts.all(|part| matches!(part, Component::Normal(_)))
        && !path.contains('\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_from_paths() {
        for id in
            ["gpt2", "facebook/opt-125m", "meta-llama/Llama-3.2-1B", "a/b@v1.0", "a/b@refs/pr/1"]
        {
            assert!(is_id(id), "{id}");
        }
        for path in [
            "",
            ".",
            "..",
            "/",
            "/a/b",
            "./a",
            "../a",
            "~/a",
            "a/b/c",
            "a//b",
            "a/",
            "/a",
            "a b",
            "model.gguf",
            "a/model.GGUF",
            "a/b@",
            "@main",
            "a/b@../c",
            "a/b@/c",
            "a/..",
            "a--b/c",
            "a\\b",
            "src",
        ] {
            assert!(!is_id(path), "{path}");
        }
    }
}
