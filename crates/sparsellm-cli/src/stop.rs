//! SIGINT and SIGTERM end a run at its next safe point; a second one ends it at
//! once, which loses no finished layer either.

use sparsellm::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

/// Watches for the signals from here on, and past a file-size limit has writes
/// fail as on a full disk.
#[cfg(unix)]
pub fn watch() -> Result<()> {
    use libc::{SIGINT, SIGTERM, SIGXFSZ};
    use signal_hook::iterator::Signals;
    let fail = |e| Error::io("signals", e);
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGXFSZ]).map_err(fail)?;
    let wait = move || {
        for signal in signals.forever().filter(|s| *s != SIGXFSZ) {
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
pub fn watch() -> Result<()> {
    Ok(())
}

/// A safe point: fails where the run is to end.
pub fn check() -> Result<()> {
    if ASKED.load(Ordering::Relaxed) { Err(Error::Stopped) } else { Ok(()) }
}
