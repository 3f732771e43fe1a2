//! Models and data sets by id from the Hugging Face hub, in the cache of Python's
//! `huggingface_hub`: each finds what the other has downloaded.
//!
//! ```no_run
//! use sparsellm_base::Observer;
//! use sparsellm_data::Hub;
//!
//! let accept = |_: &serde_json::Value, _: &std::path::Path| Ok(());
//! let hub = Hub::from_env(false);
//! let folder = hub.model("HuggingFaceTB/SmolLM2-135M", &accept, &mut Observer::silent())?;
//! assert!(folder.join("config.json").is_file());
//! # Ok::<(), sparsellm_base::Error>(())
//! ```

mod client;
mod download;
mod id;
mod remote;

pub use client::Hub;
pub use id::is_id;
