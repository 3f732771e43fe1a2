//! The job that this process belongs to: the process alone, or all processes of an `mpirun`.

#[cfg(feature = "mpi")]
pub use sparsellm_ranks::mpi::{join, world};

#[cfg(not(feature = "mpi"))]
pub use alone::{join, world};

/// The job of a command that was built without MPI, which has a single rank.
#[cfg(not(feature = "mpi"))]
mod alone {
    use sparsellm::Result;
    use sparsellm_base::usage_error;
    use sparsellm_ranks::{Communicator, Local};

    /// The job that this process belongs to.
    pub struct Job {
        /// The number of threads that are this rank's share of the machine; `None` means all.
        pub threads: Option<usize>,
    }

    /// Joins the job.
    ///
    /// # Errors
    /// If the job has several processes: without MPI, they cannot communicate.
    pub fn join() -> Result<Job> {
        let launched = |name: &str| std::env::var(name).ok()?.parse::<usize>().ok();
        match ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"].into_iter().find_map(launched) {
            Some(ranks) if ranks > 1 => usage_error!(
                "started as {ranks} processes, but this sparsellm was built without MPI; build it with --features mpi"
            ),
            _ => Ok(Job { threads: None }),
        }
    }

    /// The ranks of the job.
    pub fn world() -> Box<dyn Communicator> {
        Box::new(Local)
    }
}
