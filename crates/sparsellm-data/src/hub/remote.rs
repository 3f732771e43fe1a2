//! Requests to the hub: the contents of a repository, the expected properties of a file, and
//! its bytes. The token is sent to the hub's own host only.

use super::id::{Repo, stays_inside};
use hf_hub::RepoType;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use sparsellm_base::Error;
use std::{io::Read, time::Duration};
use ureq::{
    Agent, Body,
    http::{Request, Response},
};

const HUGGING_FACE: &str = "https://huggingface.co";
/// How long the server may stay silent before a request is given up.
const PATIENCE: Duration = Duration::from_secs(60);
const REDIRECTS: usize = 10;
/// The maximum size of a listing; a repository with a million files stays below it.
const LARGEST_LISTING: u64 = 256 << 20;
/// The characters that must be escaped in a path.
const PATH: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Why a request failed.
pub(super) enum Failure {
    /// Another attempt may succeed: no network, or a busy server.
    Passing(Error),
    /// Another attempt would fail, too.
    Refused(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Refused(error)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let (Failure::Passing(error) | Failure::Refused(error)) = failure;
        error
    }
}

type Result<T> = std::result::Result<T, Failure>;

/// The contents of a repository.
pub(super) struct Listing {
    pub commit: String,
    /// The files' paths; none leads outside the repository.
    pub files: Vec<String>,
}

/// What the hub announces about a file.
pub(super) struct Announced {
    pub commit: String,
    /// The SHA-256 of a large file or Git's SHA-1 of any other; it also names the blob.
    pub etag: String,
    pub size: u64,
}

/// The hub's server.
pub(super) struct Remote {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

impl Remote {
    pub fn new(endpoint: Option<String>, token: Option<String>) -> Remote {
        let agent = Agent::config_builder()
            .user_agent(concat!("sparsellm/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(PATIENCE / 4))
            .timeout_per_read(Some(PATIENCE))
            .build()
            .into();
        let endpoint = endpoint.unwrap_or_else(|| HUGGING_FACE.into());
        Remote { agent, endpoint: endpoint.trim_end_matches('/').into(), token }
    }

    /// Lists the repository's files, and the commit that its revision points to.
    pub fn listing(&self, repo: &Repo) -> Result<Listing> {
        let url = format!("{}/api/{}", self.endpoint, repo.hub().api_url());
        let (mut response, _) = self.get(repo, "", url, 0)?;
        let mut text = Vec::new();
        let mut body = response.body_mut().with_config().limit(LARGEST_LISTING).reader();
        body.read_to_end(&mut text).map_err(|e| self.unreachable(repo, &e))?;
        let json: Value = serde_json::from_slice(&text).unwrap_or_default();
        let commit = json["sha"].as_str().filter(|sha| is_commit(sha));
        let (Some(commit), Some(files)) = (commit, json["siblings"].as_array()) else {
            return Err(self.no_hub("its description of the repository cannot be read"));
        };
        let names = files.iter().filter_map(|file| file["rfilename"].as_str());
        let files = names.filter(|name| stays_inside(name)).map(String::from).collect();
        Ok(Listing { commit: commit.into(), files })
    }

    /// Asks what size and hash a file of the repository must have.
    pub fn announced(&self, repo: &Repo, file: &str) -> Result<Announced> {
        let mut url = self.file_url(repo, file);
        let (mut commit, mut etag, mut size) = (None, None, None);
        // The hub announces it in the response that redirects to the storage, which may come
        // before or after redirects within the hub.
        for _ in 0..REDIRECTS {
            let response = self.call(repo, "HEAD", &url, 0)?;
            self.check(repo, file, &url, &response)?;
            let header = |name| header(&response, name).map(String::from);
            let own = |name| header(name).filter(|_| response.status().is_success());
            commit = commit.or_else(|| header("x-repo-commit"));
            etag = etag.or_else(|| header("x-linked-etag").or_else(|| own("etag")));
            size = size.or_else(|| header("x-linked-size").or_else(|| own("content-length")));
            if let (Some(commit), Some(etag), Some(size)) = (&commit, &etag, &size) {
                let etag = etag.trim_start_matches("W/").trim_matches('"');
                let (true, true, Ok(size)) = (is_commit(commit), is_hash(etag), size.parse())
                else {
                    return Err(self.no_hub(&format!("it gives no hash for {file}")));
                };
                return Ok(Announced { commit: commit.clone(), etag: etag.into(), size });
            }
            match header("location") {
                Some(location) => url = target(&url, &location),
                None => break,
            }
        }
        Err(self.no_hub(&format!("it does not say what {file} must be")))
    }

    /// The bytes of a file from `start` on, and the offset at which they really begin: 0 if
    /// the server cannot start elsewhere.
    pub fn bytes(&self, repo: &Repo, file: &str, start: u64) -> Result<(impl Read + use<>, u64)> {
        let (response, start) = self.get(repo, file, self.file_url(repo, file), start)?;
        Ok((response.into_body().into_reader(), start))
    }

    fn file_url(&self, repo: &Repo, file: &str) -> String {
        let (hub, file) = (repo.hub(), utf8_percent_encode(file, PATH));
        format!("{}/{}/resolve/{}/{file}", self.endpoint, hub.url(), hub.url_revision())
    }

    /// Sends a GET request and follows all redirects.
    fn get(
        &self,
        repo: &Repo,
        file: &str,
        mut url: String,
        start: u64,
    ) -> Result<(Response<Body>, u64)> {
        for _ in 0..REDIRECTS {
            let response = self.call(repo, "GET", &url, start)?;
            self.check(repo, file, &url, &response)?;
            if !response.status().is_redirection() {
                let begins = || {
                    let range = header(&response, "content-range")?.strip_prefix("bytes ")?;
                    range.split_once('-')?.0.parse().ok()
                };
                let start = if response.status() == 206 { begins().unwrap_or(0) } else { 0 };
                return Ok((response, start));
            }
            let Some(location) = header(&response, "location") else { break };
            url = target(&url, location);
        }
        Err(self.no_hub("it redirects without end"))
    }

    /// Sends a single request.
    fn call(&self, repo: &Repo, method: &str, url: &str, start: u64) -> Result<Response<Body>> {
        let mut request = Request::builder().method(method).uri(url);
        if start > 0 {
            request = request.header("range", format!("bytes={start}-"));
        }
        if let Some(token) = self.token.as_ref().filter(|_| self.is_own(url)) {
            if !token.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(Failure::Refused(Error::Usage(
                    "the token in HF_TOKEN (or $HF_HOME/token) holds characters that no token has; copy it again".into(),
                )));
            }
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(()).map_err(|e| self.no_hub(&format!("{url}: {e}")))?;
        self.agent.run(request).map_err(|e| self.unreachable(repo, &e))
    }

    /// Whether `url` is on the hub itself rather than on a storage host it redirects to.
    fn is_own(&self, url: &str) -> bool {
        origin(url) == origin(&self.endpoint)
    }

    /// Converts an error response into a message.
    fn check(&self, repo: &Repo, file: &str, url: &str, response: &Response<Body>) -> Result<()> {
        let (status, id, revision) = (response.status(), &repo.id, &repo.revision);
        if status.is_success() || status.is_redirection() {
            return Ok(());
        }
        let answer = format!("{} answered {status}", origin(url));
        if !self.is_own(url) || status.is_server_error() || status == 429 {
            let text = format!("{id}: {answer}; try again later");
            return Err(Failure::Passing(Error::Input(text)));
        }
        let (kind, page) = match repo.kind {
            RepoType::Model => ("model", ""),
            _ => ("data set", "datasets/"),
        };
        let code = header(response, "x-error-code").unwrap_or_default();
        // To unauthenticated clients, the hub answers 401 for a repository that does not
        // exist.
        let unknown = code == "RepoNotFound" || (status == 404 && file.is_empty());
        Err(Failure::Refused(Error::Input(match (status.as_u16(), &self.token) {
            _ if code == "RevisionNotFound" => {
                format!("{id}: the {kind} has no branch, tag or commit {revision} ({answer})")
            }
            _ if unknown => format!(
                "{id}: no such {kind} ({answer}), nor is there a file or folder of that name here; check the spelling{}",
                match &self.token {
                    None => ", or set HF_TOKEN if it is private",
                    Some(_) => ", and whether HF_TOKEN may see it if it is private",
                }
            ),
            (404, _) => format!("{id}: it has no file {file} at {revision} ({answer})"),
            (401 | 403, None) => format!(
                "{id}: gated or private ({answer}); accept its licence at {}/{page}{id} and set HF_TOKEN to a token of that account",
                self.endpoint
            ),
            (401 | 403, Some(_)) => format!(
                "{id}: gated or private, and the token in HF_TOKEN (or $HF_HOME/token) was refused ({answer}); accept its licence at {}/{page}{id} with the token's account, and check that the token is valid and may read it",
                self.endpoint
            ),
            _ => format!("{id}: {answer}"),
        })))
    }

    fn unreachable(&self, repo: &Repo, error: &dyn std::fmt::Display) -> Failure {
        Failure::Passing(Error::Input(format!(
            "{}: no such file or folder here, and the hub at {} cannot be reached: {error}; check the network (HF_ENDPOINT names another server, `offline` uses only the cache)",
            repo.id, self.endpoint
        )))
    }

    fn no_hub(&self, what: &str) -> Failure {
        Failure::Refused(Error::Input(format!(
            "{} does not answer as a hub: {what}; check HF_ENDPOINT",
            self.endpoint
        )))
    }
}

/// Whether `text` is a commit id.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && is_hash(text)
}

/// Whether `text` is a SHA-1 or SHA-256 in hexadecimal, and so a safe file name.
fn is_hash(text: &str) -> bool {
    matches!(text.len(), 40 | 64)
        && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

/// The scheme and the host of a URL.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    &url[..url[host..].find('/').map_or(url.len(), |at| host + at)]
}

/// Resolves the `location` of a redirect from `url`.
fn target(url: &str, location: &str) -> String {
    if location.contains("://") {
        location.into()
    } else if location.starts_with("//") {
        format!("{}:{location}", url.split(':').next().unwrap_or("https"))
    } else if location.starts_with('/') {
        format!("{}{location}", origin(url))
    } else {
        format!("{}/{location}", url.rsplit_once('/').map_or(url, |(folder, _)| folder))
    }
}
