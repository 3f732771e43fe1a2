//! Stops a run on SIGINT or SIGTERM. The first signal ends the run at its next safe point, the
//! second ends it at once; neither loses a finished layer. A rank of several ends at once at the
//! first signal: if it left the run at a safe point, the others would wait for it for ever.

use sparsellm::{Error, Result};
use sparsellm_ranks::Communicator;
use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

/// Starts to watch for the signals. It also catches SIGXFSZ, so that a write beyond a file-size
/// limit fails with an error, as on a full disk, and does not kill the process.
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
                // SAFETY: `_exit` never returns, so no code runs after it. `exit` would not do:
                // MPI's exit handlers would wait for ranks that have ended.
                unsafe { libc::_exit(1) }
            }
            if ASKED.load(Ordering::Relaxed) {
                eprintln!("stopped at once, by signal {signal}");
                std::process::exit(1);
            }
            // Said first: the run may end as soon as it is asked to.
            eprintln!("signal {signal}: stopping at the next safe point; once more stops at once");
            ASKED.store(true, Ordering::Relaxed);
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).map_err(fail)?;
    Ok(())
}

/// Does nothing on other systems: there, the system itself ends the process, which loses no
/// finished layer.
#[cfg(not(unix))]
pub fn watch(_: &dyn Communicator) -> Result<()> {
    Ok(())
}

/// Marks a safe point of the run.
///
/// # Errors
/// If a signal has asked the run to end.
pub fn check() -> Result<()> {
    if ASKED.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
}
