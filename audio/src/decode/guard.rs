//! Third-party decoders index and divide by what hostile files say: their panics become errors here.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use crate::Error;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`; a panic inside becomes [`Error::Undecodable`] and prints nothing.
///
/// What `work` borrowed may be left half-changed by a panic: the caller drops it or reads only its own data.
pub(super) fn guard<T>(work: impl FnOnce() -> T) -> Result<T, Error> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = take_hook();
        set_hook(Box::new(move |info| {
            // During thread teardown the flag is gone; then the panic is not ours.
            if !QUIET.try_with(Cell::get).unwrap_or(false) {
                previous(info);
            }
        }));
    });
    let before = QUIET.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    QUIET.set(before);
    outcome.map_err(|payload| {
        let message = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        Error::undecodable(format!("the decoder failed on malformed data: {message}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_its_message() {
        let error = guard(|| -> u32 { panic!("index {} out of range", 7) }).unwrap_err();
        assert!(error.to_string().contains("index 7 out of range"), "{error}");
        assert_eq!(guard(|| 5).unwrap(), 5);
    }
}
