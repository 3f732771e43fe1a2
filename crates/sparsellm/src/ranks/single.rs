//! Built without MPI: one rank.

use super::{Communicator, Local};
use crate::error::{Result, usage};

/// The job that this process belongs to.
pub struct Job {
    /// How many threads are this rank's part of the machine; `None`: all of them.
    pub threads: Option<usize>,
}

/// Joins the job that this process was started in.
///
/// # Errors
/// Where that has several processes, which need MPI to know of each other.
pub fn join() -> Result<Job> {
    let launched = |name: &str| std::env::var(name).ok()?.parse::<usize>().ok();
    match ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"].into_iter().find_map(launched) {
        Some(ranks) if ranks > 1 => usage!(
            "started as {ranks} processes, but this sparsellm was built without MPI; build it with --features mpi"
        ),
        _ => Ok(Job { threads: None }),
    }
}

/// The ranks of the job.
pub fn world() -> Box<dyn Communicator> {
    Box::new(Local)
}
