//! Pre-trained models on disk. A [`Checkpoint`] yields named tensors as f32, whatever the
//! file format. A [`Writer`] lays out the pruned checkpoint beside its destination, fills it
//! in any order, and renames it at the end.
//!
//! ```
//! # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/tiny-llama");
//! use sparsellm_checkpoint::Checkpoint;
//!
//! let checkpoint = Checkpoint::open(folder.as_ref())?;
//! let norm = checkpoint.vector("model.norm.weight")?;
//! assert_eq!(norm.len(), checkpoint.info("model.norm.weight")?.len());
//! # Ok::<(), sparsellm_base::Error>(())
//! ```

mod carry_over;
mod checkpoint;
mod dtype;
mod folder;
mod folder_entry;
mod gguf;
mod json;
mod python_json;
mod pytorch;
mod quantization;
mod run_folder;
mod safetensors;
mod shard;
mod slot;
mod tensor_source;
mod weight_files;
mod writer;

pub use carry_over::LeftOut;
pub use checkpoint::Checkpoint;
pub use dtype::Dtype;
pub use json::{hex, read_json};
pub use python_json::{NotNumber, parse_json};
pub use quantization::refuse_quantized;
pub use run_folder::{
    Existing, PARTIAL, RECORD, REPORT, checkpoint_of, finished_record, folder_of, unfinished,
};
pub use slot::{Rows, Slot};
pub use tensor_source::{EmbeddedFiles, TensorInfo, TensorSource};
pub use weight_files::{Layout, PYTORCH, SAFETENSORS, weight_files};
pub use writer::{Finished, Writer};
