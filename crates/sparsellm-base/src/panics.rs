//! Turns panics in third-party file readers into errors: those crates assert properties that
//! a damaged file may violate.
//!
//! Only the program may set the panic hook, so it decides whether such a panic is reported: a
//! hook can check [`is_guarded`] and stay silent.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
};

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside [`catch`], where a panic becomes an error.
pub fn is_guarded() -> bool {
    GUARDED.get()
}

/// Runs `body`, and turns a panic in it into an error.
///
/// # Errors
/// Returns the error of `body`, or an error of its own if `body` panicked.
pub fn catch<T>(
    body: impl FnOnce() -> std::result::Result<T, String>,
) -> std::result::Result<T, String> {
    let outer = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(body));
    GUARDED.set(outer);
    result.unwrap_or_else(|_| Err("its parts contradict each other".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::panic)]
    fn a_panic_is_an_error_and_the_guard_ends() {
        assert!(catch(|| if is_guarded() { panic!("damaged") } else { Ok(()) }).is_err());
        assert!(!is_guarded());
        assert_eq!(catch(|| Ok(3)), Ok(3));
    }
}
