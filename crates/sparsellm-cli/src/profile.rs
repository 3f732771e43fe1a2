//! `prune --profile`: shows the library's ledger of phases as a table and as JSON.

use serde_json::{Value, json};
use sparsellm::Profile;
use sparsellm_tensor::gemm_peak;
use sparsellm_tensor::profile::{Entry, Phase};
use std::fmt;

/// The time and work of each phase of a run.
pub struct Table {
    /// The speed of the machine's matrix product, in flop/s.
    peak: f64,
    seconds: f64,
    phases: Vec<(Phase, Entry)>,
}

impl Table {
    /// The table of a run. `peak` is the speed of the matrix product, in flop/s, as measured
    /// before the run. The speed is measured again now, and the larger one counts, because other
    /// programs may have slowed down either measurement.
    pub fn new(profile: &Profile, peak: f64) -> Table {
        let seconds = profile.seconds.get();
        let mut phases = Phase::ALL.map(|phase| (phase, profile.ledger.entry(phase))).to_vec();
        let known: f64 = phases.iter().map(|(_, entry)| entry.seconds).sum();
        for (phase, entry) in &mut phases {
            if *phase == Phase::Rest {
                entry.seconds = (seconds - known).max(0.0);
            }
        }
        Table { peak: peak.max(gemm_peak()), seconds, phases }
    }

    fn total(&self) -> Entry {
        let sum = |f: fn(&Entry) -> f64| self.phases.iter().map(|(_, entry)| f(entry)).sum();
        Entry { seconds: self.seconds, flops: sum(|e| e.flops), bytes: sum(|e| e.bytes) }
    }

    /// The table as JSON, for `--json`.
    pub fn json(&self) -> Value {
        let phases: serde_json::Map<String, Value> =
            self.phases.iter().map(|(phase, entry)| (phase.name().into(), json!(entry))).collect();
        json!({"gemm_peak_flops": self.peak, "seconds": self.seconds, "phases": phases})
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (peak, total) = (self.peak, self.total());
        writeln!(
            f,
            "{:8} {:>9} {:>7} {:>10} {:>9} {:>8} {:>9}",
            "phase", "seconds", "share", "GFLOP", "GFLOP/s", "of peak", "GB moved"
        )?;
        let mut row = |name: &str, e: &Entry| {
            let speed = if e.seconds > 0.0 { e.flops / e.seconds } else { 0.0 };
            writeln!(
                f,
                "{name:8} {:9.3} {:6.1}% {:10.2} {:9.2} {:7.1}% {:9.2}",
                e.seconds,
                100.0 * e.seconds / total.seconds.max(f64::MIN_POSITIVE),
                e.flops / 1e9,
                speed / 1e9,
                100.0 * speed / peak,
                e.bytes / 1e9,
            )
        };
        for (phase, entry) in &self.phases {
            row(phase.name(), entry)?;
        }
        row("all", &total)?;
        writeln!(f, "The machine's matrix product reaches {:.1} GFLOP/s.", peak / 1e9)
    }
}
