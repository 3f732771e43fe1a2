//! Ranks as MPI processes.

use crate::Communicator;
use ::mpi::topology::Communicator as _;
use ::mpi::{
    Count, Threading, collective::SystemOperation, datatype::PartitionMut, environment::Universe,
    topology::SimpleCommunicator, traits::*,
};
use sparsellm_base::{Error, Result};
use sparsellm_tensor::profile::{Phase, phase};

/// Values summed or broadcast at once. MPI counts in 32 bits, and a sum needs a second buffer
/// of this size.
const PIECE: usize = 1 << 22;

/// This process's membership in an MPI job, held until dropped.
pub struct Job {
    /// The number of threads that are this rank's share of the machine; `None` for all of
    /// them.
    pub threads: Option<usize>,
    _universe: Universe,
}

/// Joins the MPI job that this process was started in. A process started on its own joins a
/// job of one rank.
///
/// # Errors
/// Returns an error if MPI does not start, or does not support calls from more than one
/// thread.
pub fn join() -> Result<Job> {
    let fail = |why: &str| Err(Error::Input(format!("MPI: {why}")));
    let Some((universe, threading)) = ::mpi::initialize_with_threading(Threading::Serialized)
    else {
        return fail("was started before");
    };
    if threading < Threading::Serialized {
        return fail("this library cannot be called from other threads than the first");
    }
    let threads = threads(&universe.world());
    Ok(Job { threads, _universe: universe })
}

/// The communicator of all ranks in the job, which must have been joined.
pub fn world() -> Box<dyn Communicator> {
    Box::new(World(SimpleCommunicator::world()))
}

/// This rank's share of threads. Ranks on one machine that are not bound to separate
/// processors divide those that they share.
fn threads(world: &SimpleCommunicator) -> Option<usize> {
    let machine = world.split_shared(world.rank());
    let mine = processors();
    let mut all = vec![0u64; machine.size() as usize];
    machine.all_gather_into(&mine, &mut all[..]);
    let sharing = all.iter().filter(|theirs| **theirs == mine).count();
    let available = std::thread::available_parallelism().ok()?.get();
    (sharing > 1).then(|| (available / sharing).max(1))
}

/// A fingerprint of the processors that this process may run on: different numbers mean
/// different processors.
fn processors() -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hash = DefaultHasher::new();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find(|line| line.starts_with("Cpus_allowed:")).hash(&mut hash);
    hash.finish()
}

struct World(SimpleCommunicator);

impl Communicator for World {
    fn rank(&self) -> usize {
        self.0.rank() as usize
    }

    fn size(&self) -> usize {
        self.0.size() as usize
    }

    fn sum(&self, values: &mut [f64]) {
        phase(Phase::Exchange, || {
            for values in values.chunks_mut(PIECE) {
                self.0.all_reduce_into(&values.to_vec()[..], values, SystemOperation::sum());
            }
        });
    }

    fn broadcast(&self, root: usize, bytes: &mut [u8]) {
        let root = self.0.process_at_rank(root as Count);
        phase(Phase::Exchange, || {
            bytes.chunks_mut(4 * PIECE).for_each(|bytes| root.broadcast_into(bytes));
        });
    }

    fn gather(&self, mine: &[f32], counts: &[usize], all: &mut [f32]) {
        let counts: Vec<Count> = counts.iter().map(|n| *n as Count).collect();
        let starts = counts.iter().scan(0, |sum, n| Some(std::mem::replace(sum, *sum + n)));
        let starts: Vec<Count> = starts.collect();
        phase(Phase::Exchange, || {
            self.0.all_gather_varcount_into(mine, &mut PartitionMut::new(all, counts, starts));
        });
    }

    fn abort(&self, status: i32) {
        self.0.abort(status)
    }
}
