//! The wish to stop: a flag that the first interrupt or termination sets; the second one ends the program at once.

use std::{
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use super::output::status_line;

/// What a shell says of a program that an interrupt ended.
const INTERRUPTED: i32 = 130;

/// Watches for signals from now on.
#[expect(clippy::exit, reason = "who asks twice does not want to wait")]
pub(super) fn stop_flag(message: &'static str) -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().context("no signals")?;
    let (mut interrupt, mut terminate) = {
        let _entered = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if flag.swap(true, Ordering::Relaxed) {
                    process::exit(INTERRUPTED);
                }
                status_line(message);
            }
        });
    })?;
    Ok(stop)
}
