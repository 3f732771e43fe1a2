//! Parquet files, read with the `parquet` crate.

mod layout;
mod pages;
mod reader;
mod thrift;

pub(crate) use reader::values;
