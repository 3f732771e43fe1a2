//! Tests files of data sets by id. This test has a process of its own, because it sets the
//! environment of the process.
#![allow(clippy::unwrap_used)]

mod common;

use common::hub::{COMMIT, Hub, Rules};
use sparsellm::{Event, Observer};
use tempfile::TempDir;

#[test]
fn files_of_a_data_set_are_listed_and_fetched() {
    let files = [("data/train 1.parquet", "rows"), ("README.md", "about"), ("../x", "hostile")];
    let files = files.iter().map(|(name, bytes)| (name.to_string(), bytes.as_bytes().to_vec()));
    let (temp, server) = (
        TempDir::new().unwrap(),
        Hub::serve("datasets/org/set", files.collect(), Rules::default()),
    );
    // SAFETY: no other thread of this process reads the environment yet.
    unsafe {
        for name in ["HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE"] {
            std::env::remove_var(name);
        }
        std::env::set_var("HF_HUB_CACHE", temp.path());
        std::env::set_var("HF_ENDPOINT", server.url());
        std::env::set_var("NO_PROXY", "127.0.0.1");
        std::env::set_var("no_proxy", "127.0.0.1");
    }
    let (hub, offline) = (sparsellm::Hub::from_env(false), sparsellm::Hub::from_env(true));
    let (id, file) = ("org/set", "data/train 1.parquet");
    assert!(offline.dataset_file(id, file, &mut Observer::silent()).is_err());
    assert_eq!(hub.dataset_files(id).unwrap(), ["README.md", file]);

    let mut seen = Vec::new();
    // An observer's error ends a download; afterwards, the file is downloaded anew.
    let mut stop = Observer::new(|_| Err("enough".into()));
    assert_eq!(hub.dataset_file(id, file, &mut stop).unwrap_err().to_string(), "enough");
    let mut watch = Observer::new(|event| {
        match event {
            Event::Download { file, done, of } => seen.push((file.to_string(), done, of)),
            event => seen.push((format!("{event:?}"), 0, 0)),
        }
        Ok(())
    });
    let path = hub.dataset_file(id, file, &mut watch).unwrap();
    drop(watch);
    assert_eq!(std::fs::read(&path).unwrap(), b"rows");
    assert_eq!(seen, [(file.to_string(), 0, 4), (file.to_string(), 4, 4)]);
    let place = temp.path().join("datasets--org--set/snapshots").join(COMMIT).join(file);
    assert_eq!(path, place);
    #[cfg(unix)]
    assert!(std::fs::read_link(&path).unwrap().starts_with("../../../blobs"));

    assert_eq!(
        hub.dataset_file(id, file, &mut Observer::new(|e| Err(format!("{e:?}").into()))).unwrap(),
        place
    );
    server.requests();
    assert_eq!(offline.dataset_file(id, file, &mut Observer::silent()).unwrap(), place);
    assert_eq!(offline.dataset_files(id).unwrap(), [file]);
    assert!(server.requests().is_empty());
    for bad in ["../x", "/etc/passwd", "", "data/none.parquet"] {
        assert!(hub.dataset_file(id, bad, &mut Observer::silent()).is_err(), "{bad}");
    }
}
