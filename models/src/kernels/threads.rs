//! Who computes on which threads.

#[cfg(target_os = "linux")]
use std::{env, fs, thread};

/// How candle is told how many threads its own element-wise loops may use, and how often they look for work before they sleep.
#[cfg(target_os = "linux")]
const VARIABLES: [&str; 2] = ["CANDLE_NUM_THREADS", "CANDLE_BARRIER_POOL_SPIN_LIMIT"];
/// With so many cores or fewer candle's threads are in the way more than they help.
#[cfg(target_os = "linux")]
const FEW_CORES: usize = 4;

/// Leaves the processors to the kernels here. candle keeps threads of its own for element-wise loops, and after each of them they
/// go round and round for a third of a millisecond before they sleep: on two cores that takes a sixth of a training step from
/// the threads that multiply matrices. On few cores they are not used at all, on more they sleep at once.
///
/// To be called at the start of a program, before candle computes anything. Whoever sets candle's variables decides. Does nothing
/// in a process that has several threads already, and nothing but on Linux, where that can be told.
pub fn leave_threads_to_kernels() {
    #[cfg(target_os = "linux")]
    if is_alone() && VARIABLES.iter().all(|name| env::var_os(name).is_none()) {
        let n_cores = thread::available_parallelism().map_or(1, usize::from);
        let (name, value) = if n_cores <= FEW_CORES { (VARIABLES[0], "1") } else { (VARIABLES[1], "200") };
        // SAFETY: no other thread reads or writes the environment, as there is none.
        unsafe { env::set_var(name, value) };
    }
}

/// Whether the process has this thread alone.
#[cfg(target_os = "linux")]
fn is_alone() -> bool {
    fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_several_threads_keeps_its_environment() {
        // The test harness has a thread for this test.
        assert!(!is_alone());
        let before = VARIABLES.map(env::var_os);
        leave_threads_to_kernels();
        assert_eq!(VARIABLES.map(env::var_os), before);
    }
}
