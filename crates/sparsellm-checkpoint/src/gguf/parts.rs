//! The files of a model: one, or several that llama.cpp's `gguf-split` made, named
//! `NAME-00001-of-00003.gguf` and so on.

use std::path::{Path, PathBuf};

use super::metadata::Metadata;
use super::reader::TensorInfo;
use crate::folder::map_file;
use sparsellm_base::{Error, Result, input_error};

/// One file, with its header parsed.
pub(super) struct Part {
    pub metadata: Metadata,
    pub tensors: Vec<TensorInfo>,
}

/// A part's number, from 0, and how many there are.
#[derive(Clone, Copy, PartialEq)]
struct Place {
    number: usize,
    count: usize,
}

impl Part {
    fn open(path: &Path) -> Result<Part> {
        let (metadata, tensors) = Metadata::parse(path.display().to_string(), map_file(path)?)?;
        Ok(Part { metadata, tensors })
    }

    fn place(&self) -> Result<Place> {
        let number = self.metadata.number("split.no")?.unwrap_or(0);
        let count = self.metadata.number("split.count")?.unwrap_or(1).max(1);
        if number >= count {
            let file = &self.metadata.file;
            return input_error!("{file}: `split.no` is {number}, of `split.count` {count}");
        }
        Ok(Place { number, count })
    }
}

/// Opens all files of the model of which `path` is one, in order.
///
/// # Errors
/// Returns an error if a file is missing, damaged, or belongs to another model.
pub(super) fn open(path: &Path) -> Result<Vec<Part>> {
    let named = Part::open(path)?;
    let Place { number, count } = named.place()?;
    if count == 1 {
        return Ok(vec![named]);
    }
    let announced = named.metadata.number("split.tensors.count")?;
    let (mut parts, mut named) = (Vec::new(), Some(named));
    for other in 0..count {
        let own = if other == number { named.take() } else { None };
        parts.push(match own {
            Some(part) => part,
            None => sibling(path, Place { number, count }, other)?,
        });
    }
    let tensors = parts.iter().map(|part| part.tensors.len()).sum::<usize>();
    match announced {
        Some(announced) if announced != tensors => input_error!(
            "{}: `split.tensors.count` is {announced}, but the {count} parts hold {tensors} tensors",
            path.display()
        ),
        _ => Ok(parts),
    }
}

/// Opens part `number` of the model of which `path` is the part at `place`.
fn sibling(path: &Path, place: Place, number: usize) -> Result<Part> {
    let Place { count, .. } = place;
    let Some(other) = sibling_path(path, place, number) else {
        let (no, name) = (place.number + 1, suffix(place.number, count));
        return input_error!(
            "{}: it is part {no} of {count}, but its name does not end in {name}, so the other parts cannot be found; give all parts the names that gguf-split gave them",
            path.display()
        );
    };
    if !other.is_file() {
        return input_error!(
            "{}: part {} of {count} is missing; put {} beside it",
            path.display(),
            number + 1,
            other.file_name().unwrap_or_default().display()
        );
    }
    let part = Part::open(&other)?;
    if part.place()? != (Place { number, count }) {
        return Err(Error::Input(format!(
            "{}: its metadata do not say that it is part {} of {count}; download it again",
            other.display(),
            number + 1
        )));
    }
    Ok(part)
}

/// The path of part `number`.
fn sibling_path(path: &Path, place: Place, number: usize) -> Option<PathBuf> {
    let stem = path.file_name()?.to_str()?.strip_suffix(&suffix(place.number, place.count))?;
    Some(path.with_file_name(format!("{stem}{}", suffix(number, place.count))))
}

/// How the name of part `number` (from 0) ends.
fn suffix(number: usize, count: usize) -> String {
    format!("-{:05}-of-{count:05}.gguf", number.saturating_add(1))
}
