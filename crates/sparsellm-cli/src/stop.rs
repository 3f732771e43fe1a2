//! SIGINT and SIGTERM end a run at its next safe point; a second one ends it at
//! once, which loses no finished layer either. One of several ranks ends at once:
//! the others would wait for it.

use sparsellm::{Error, Result};
use sparsellm_ranks::Communicator;
use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

/// Watches for the signals from here on, and past a file-size limit has writes
/// fail as on a full disk.
#[cfg(unix)]
pub fn watch(ranks: &dyn Communicator) -> Result<()> {
    use libc::{SIGINT, SIGTERM, SIGXFSZ};
    use signal_hook::iterator::Signals;
    let fail = |e| Error::io("signals", e);
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGXFSZ]).map_err(fail)?;
    let (rank, alone) = (ranks.rank(), ranks.size() == 1);
    let wait = move || {
        for signal in signals.forever().filter(|s| *s != SIGXFSZ) {
            if !alone {
                if rank == 0 {
                    eprintln!(
                        "stopped by signal {signal}, which mpirun sends when another rank has ended; finished layers stay, and the same command with --resume goes on from there, on any number of ranks"
                    );
                }
                // SAFETY: it returns to nothing. `exit` would wait in MPI for ranks
                // that have ended.
                unsafe { libc::_exit(1) }
            }
            if ASKED.swap(true, Ordering::Relaxed) {
                eprintln!("stopped at once, by signal {signal}");
                std::process::exit(1);
            }
            eprintln!("signal {signal}: stopping at the next safe point; once more stops at once");
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).map_err(fail)?;
    Ok(())
}

/// Elsewhere the system ends the process, which loses no finished layer.
#[cfg(not(unix))]
pub fn watch(_: &dyn Communicator) -> Result<()> {
    Ok(())
}

/// A safe point: fails where the run is to end.
pub fn check() -> Result<()> {
    if ASKED.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
}
