//! A small Hugging Face hub on loopback. It serves one repository and, like the real hub, keeps the
//! large files in a storage at another address.

use super::sparsellm_command;
use serde_json::json;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Output;
use std::sync::{Arc, Mutex};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The faults of the server, and the token that it asks for.
#[derive(Clone, Default)]
pub struct Rules {
    /// The token that is needed to see the files, if any.
    pub token: Option<&'static str>,
    /// The byte of a file at which the storage breaks off, as many times as `cuts` says.
    pub cut_at: usize,
    pub cuts: usize,
    /// Whether the storage ignores ranges and always begins at byte 0.
    pub no_ranges: bool,
    /// The file that is sent with one wrong bit, if any.
    pub damaged: Option<&'static str>,
}

/// A request as the server received it.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub range: Option<String>,
    pub token: Option<String>,
    pub at_storage: bool,
}

struct State {
    /// The repository: `models/org/name` or `datasets/org/name`.
    repo: String,
    files: BTreeMap<String, Vec<u8>>,
    rules: Mutex<Rules>,
    requests: Mutex<Vec<Request>>,
    storage: SocketAddr,
}

pub struct Hub {
    state: Arc<State>,
    address: SocketAddr,
}

/// The names and contents of the files in a folder.
pub fn files_of(folder: &str) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap());
    entries
        .map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap()))
        .collect()
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// The id that Git gives a file with this content.
pub fn git_hash(bytes: &[u8]) -> String {
    let blob = [format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat();
    Sha1::digest(&blob).iter().map(|b| format!("{b:02x}")).collect()
}

/// Whether the file is large, so that Git keeps it in a storage elsewhere.
fn is_large(name: &str) -> bool {
    [".safetensors", ".bin", ".h5", ".parquet"].iter().any(|end| name.ends_with(end))
}

impl Hub {
    pub fn serve(repo: &str, files: Vec<(String, Vec<u8>)>, rules: Rules) -> Hub {
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (own, storage) = (listen(), listen());
        let address = own.local_addr().unwrap();
        let state = Arc::new(State {
            repo: repo.into(),
            files: files.into_iter().collect(),
            rules: Mutex::new(rules),
            requests: Mutex::default(),
            storage: storage.local_addr().unwrap(),
        });
        for (listener, at_storage) in [(own, false), (storage, true)] {
            let state = state.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let state = state.clone();
                    // An error here only means that the client has hung up.
                    std::thread::spawn(move || state.answer(stream.ok()?, at_storage).ok());
                }
            });
        }
        Hub { state, address }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn set(&self, rules: Rules) {
        *self.state.rules.lock().unwrap() = rules;
    }

    /// The requests since the last call.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.requests.lock().unwrap())
    }

    /// Runs the command against this hub, with its cache in `home`.
    pub fn run(&self, home: &Path, args: &[&str]) -> Output {
        self.run_with(home, args, &[])
    }

    pub fn run_with(&self, home: &Path, args: &[&str], env: &[(&str, &str)]) -> Output {
        let mut command = sparsellm_command(args);
        for name in ["HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HF_HUB_OFFLINE"] {
            command.env_remove(name);
        }
        command.env("HF_HOME", home).env("HF_ENDPOINT", self.url());
        command.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
        command.envs(env.iter().copied()).output().unwrap()
    }
}

impl State {
    fn answer(&self, mut stream: TcpStream, at_storage: bool) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let first = lines.next().unwrap()?;
        let mut words = first.split(' ').map(String::from);
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let mut headers = BTreeMap::new();
        for line in lines {
            let Some((name, value)) =
                line?.split_once(": ").map(|(n, v)| (n.to_lowercase(), v.to_string()))
            else {
                break;
            };
            headers.insert(name, value);
        }
        let request = Request {
            method,
            path,
            range: headers.remove("range"),
            token: headers.remove("authorization"),
            at_storage,
        };
        self.requests.lock().unwrap().push(request.clone());
        if at_storage {
            self.store(&mut stream, &request)
        } else {
            self.front(&mut stream, &request)
        }
    }

    /// Answers a request to the hub itself.
    fn front(&self, stream: &mut TcpStream, request: &Request) -> std::io::Result<()> {
        let (kind, id) = self.repo.split_once('/').unwrap();
        let prefix = if kind == "models" { String::new() } else { format!("{kind}/") };
        let resolve = format!("/{prefix}{id}/resolve/");
        let cached = format!("/api/resolve-cache/{}/{COMMIT}/", self.repo);
        let error = |status: &str, code: &str| format!("{status}\r\nx-error-code: {code}");
        if let Some(revision) = request.path.strip_prefix(&format!("/api/{}/revision/", self.repo))
        {
            if ![COMMIT, "main", "refs%2Fpr%2F1"].contains(&revision) {
                return send(stream, request, &error("404 Not Found", "RevisionNotFound"), b"");
            }
            let siblings: Vec<_> = self.files.keys().map(|f| json!({"rfilename": f})).collect();
            let body = json!({"sha": COMMIT, "siblings": siblings}).to_string();
            return send(stream, request, "200 OK", body.as_bytes());
        }
        let rules = self.rules.lock().unwrap().clone();
        let allowed = rules.token.map(|token| format!("Bearer {token}"));
        let is_cached = request.path.starts_with(&cached);
        let file = match request.path.strip_prefix(&cached) {
            Some(file) => Some(file),
            None => request.path.strip_prefix(&resolve).and_then(|f| Some(f.split_once('/')?.1)),
        };
        let Some(file) = file.map(|f| f.replace("%20", " ")) else {
            return send(stream, request, &error("404 Not Found", "RepoNotFound"), b"");
        };
        if allowed.is_some() && request.token != allowed {
            let status = if request.token.is_none() { "401 Unauthorized" } else { "403 Forbidden" };
            return send(stream, request, &error(status, "GatedRepo"), b"");
        }
        let Some(bytes) = self.files.get(&file) else {
            return send(stream, request, &error("404 Not Found", "EntryNotFound"), b"");
        };
        if is_large(&file) {
            let (storage, hash, size) = (self.storage, sha256(bytes), bytes.len());
            let head = format!(
                "302 Found\r\nlocation: http://{storage}/{hash}\r\nx-repo-commit: {COMMIT}\r\nx-linked-etag: \"{hash}\"\r\nx-linked-size: {size}"
            );
            return send(stream, request, &head, b"");
        }
        if !is_cached {
            let location = format!("{cached}{}", file.replace(' ', "%20"));
            let head = format!("307 Temporary Redirect\r\nlocation: {location}");
            return send(stream, request, &head, b"");
        }
        let hash = git_hash(bytes);
        let head = format!("200 OK\r\nx-repo-commit: {COMMIT}\r\netag: W/\"{hash}\"");
        send(stream, request, &head, &damage(bytes, rules.damaged == Some(&file)))
    }

    /// Answers a request to the storage with a large file, named by its hash, or a part of it.
    fn store(&self, stream: &mut TcpStream, request: &Request) -> std::io::Result<()> {
        let hash = &request.path[1..];
        let (name, bytes) = self.files.iter().find(|(_, b)| sha256(b) == hash).unwrap();
        let cut = {
            let mut rules = self.rules.lock().unwrap();
            let cut = (rules.cuts > 0).then_some(rules.cut_at);
            rules.cuts = rules.cuts.saturating_sub(1);
            cut
        };
        let rules = self.rules.lock().unwrap().clone();
        let bytes = damage(bytes, rules.damaged == Some(name));
        let from = request.range.as_ref().filter(|_| !rules.no_ranges).map_or(0, |range| {
            range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap()
        });
        let (total, rest) = (bytes.len(), &bytes[from..]);
        let status = match from {
            0 => "200 OK".to_string(),
            _ => {
                format!("206 Partial Content\r\ncontent-range: bytes {from}-{}/{total}", total - 1)
            }
        };
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            rest.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(
            &rest[..cut.map_or(rest.len(), |at| at.saturating_sub(from)).min(rest.len())],
        )
    }
}

fn damage(bytes: &[u8], really: bool) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if really {
        bytes[7] ^= 1;
    }
    bytes
}

fn send(stream: &mut TcpStream, request: &Request, head: &str, body: &[u8]) -> std::io::Result<()> {
    let length = body.len();
    write!(stream, "HTTP/1.1 {head}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n")?;
    if request.method == "HEAD" { Ok(()) } else { stream.write_all(body) }
}
