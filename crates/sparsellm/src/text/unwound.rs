//! Panics of the crates that read files for us, as errors: they assert what a
//! damaged file does not keep.

use std::{
    cell::Cell,
    panic::{self, AssertUnwindSafe},
    sync::Once,
};

thread_local! {
    /// Whether a panic on this thread is nothing to tell the user.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs `body`, and has a panic in it be an error.
pub fn unwound<T>(
    body: impl FnOnce() -> std::result::Result<T, String>,
) -> std::result::Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                others(info);
            }
        }));
    });
    QUIET.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(body));
    QUIET.set(false);
    result.unwrap_or_else(|_| Err("its parts contradict each other".into()))
}
