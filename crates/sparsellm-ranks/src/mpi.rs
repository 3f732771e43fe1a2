//! Ranks that are MPI processes.

use crate::Communicator;
use ::mpi::topology::Communicator as _;
use ::mpi::{
    Count, Threading, collective::SystemOperation, datatype::PartitionMut, environment::Universe,
    topology::SimpleCommunicator, traits::*,
};
use sparsellm_base::{Error, Result};
use sparsellm_tensor::profile::{Phase, phase};

/// Values that are summed or broadcast at once: MPI counts in 32 bits, and sums
/// from one buffer into another.
const PIECE: usize = 1 << 22;

/// The job that this process belongs to, until it is dropped.
pub struct Job {
    /// How many threads are this rank's part of the machine; `None`: all of them.
    pub threads: Option<usize>,
    _universe: Universe,
}

/// Joins the job that this process was started in; started by itself, it is one of
/// one rank.
///
/// # Errors
/// Where MPI does not start, or allows one thread only.
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

/// The ranks of the job, which must have been joined.
pub fn world() -> Box<dyn Communicator> {
    Box::new(World(SimpleCommunicator::world()))
}

/// Ranks on one machine that were not bound to processors of their own divide
/// those they have in common.
fn threads(world: &SimpleCommunicator) -> Option<usize> {
    let machine = world.split_shared(world.rank());
    let mine = processors();
    let mut all = vec![0u64; machine.size() as usize];
    machine.all_gather_into(&mine, &mut all[..]);
    let sharing = all.iter().filter(|theirs| **theirs == mine).count();
    let available = std::thread::available_parallelism().ok()?.get();
    (sharing > 1).then(|| (available / sharing).max(1))
}

/// A number that differs where processes may run on different processors.
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
