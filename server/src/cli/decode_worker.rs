//! `speechd decode-worker`: one recording from the standard input to samples on the standard output, within bounds
//! that the process first puts on itself. Run by [`crate::decode`], which says what each bound is for.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::AsFd,
};

use audio::{ChannelChoice, Decoded};
use rustix::process::{Resource, Rlimit, getrlimit, nice, setrlimit};

use super::{output::Closed, recognizer::decode_audio};
use crate::{
    config::Limits,
    decode::{Head, Refusal, Reply, write_reply},
};

/// Three are open from the start, one more is the second name of the standard input.
const MAX_OPEN_FILES: u64 = 16;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Rate to convert to, Hz
    #[arg(long)]
    sample_rate: u32,
    /// Length of the recording
    #[arg(long)]
    max_duration_secs: f64,
    /// Memory for its samples, before and after conversion
    #[arg(long)]
    max_samples_bytes: u64,
    /// Channels before mixing
    #[arg(long)]
    max_channels: u16,
    /// Processor time for decoding
    #[arg(long)]
    max_cpu_secs: f64,
    /// Memory for everything, the program's own code included
    #[arg(long)]
    max_memory_bytes: u64,
    /// Added to the niceness: how far to give way to the server's own threads, and to other workers
    #[arg(long)]
    niceness: i32,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let outcome = confine(args)
        .map_err(|error| Refusal::worker(&format!("it cannot limit itself: {error}")))
        .and_then(|()| decode(args));
    let (reply, samples) = match outcome {
        Ok((head, samples)) => (Reply::Ok(head), samples),
        Err(refusal) => (Reply::Error(refusal), Vec::new()),
    };
    // Past the line buffer of `io::stdout`, which would search the samples for ends of lines.
    let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    match write_reply(&reply, &samples, stdout) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Closed.into()),
        result => Ok(result?),
    }
}

fn decode(args: &Args) -> Result<(Head, Vec<f32>), Refusal> {
    let max_samples_bytes = args.max_samples_bytes.min(args.max_memory_bytes);
    let limits = Limits {
        max_duration_secs: args.max_duration_secs,
        // Whoever received the upload has counted its bytes; a pipe is bounded by the memory.
        max_input_bytes: u64::MAX,
        max_samples_bytes,
        max_channels: args.max_channels,
        max_cpu_secs: args.max_cpu_secs,
    };
    let options = decode_audio(limits, ChannelChoice::Mix);
    let input = File::from(io::stdin().as_fd().try_clone_to_owned().map_err(audio::Error::Io)?);
    let Decoded { mut waveform, source, warnings } =
        if input.metadata().is_ok_and(|metadata| metadata.is_file()) {
            audio::decode_open_file(input, &options)?
        } else {
            let mut bytes = Vec::new();
            io::stdin().lock().read_to_end(&mut bytes).map_err(audio::Error::Io)?;
            audio::decode_bytes(bytes, None, &options)?
        };
    let too_large = || audio::Error::TooLarge { what: "converted audio", limit_bytes: max_samples_bytes };
    if waveform.sample_rate != args.sample_rate {
        waveform = audio::resample(&waveform, args.sample_rate).map_err(|error| match error {
            audio::Error::TooLarge { .. } => too_large(),
            error => error,
        })?;
    }
    let n_samples = waveform.samples.len() as u64;
    if 4 * n_samples > max_samples_bytes {
        return Err(too_large().into());
    }
    let warnings = warnings.iter().map(ToString::to_string).collect();
    Ok((Head { sample_rate: args.sample_rate, n_samples, source, warnings }, waveform.samples))
}

/// Lowers what the kernel allows this process, for good.
///
/// Linux has all of it. Elsewhere there is no signal for the parent's death (a child whose parent is gone ends at
/// the processor limit, or when it writes), and the address space cannot always be limited (what remains are the
/// samples' limit, the clock and the parent's kill).
fn confine(args: &Args) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    #[cfg(not(target_os = "openbsd"))]
    lower(Resource::As, args.max_memory_bytes, args.max_memory_bytes)?;
    // Whole seconds. The first limit sends a signal of its own, by which the parent knows the reason.
    let max_cpu_secs = (args.max_cpu_secs.ceil() as u64).max(1);
    lower(Resource::Cpu, max_cpu_secs, max_cpu_secs.saturating_add(1))?;
    lower(Resource::Core, 0, 0)?;
    lower(Resource::Fsize, 0, 0)?;
    lower(Resource::Nofile, MAX_OPEN_FILES, MAX_OPEN_FILES)?;
    nice(args.niceness)?;
    Ok(())
}

fn lower(resource: Resource, current: u64, maximum: u64) -> io::Result<()> {
    let allowed = getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let limit = Rlimit { current: Some(current.min(allowed)), maximum: Some(maximum.min(allowed)) };
    match setrlimit(resource, limit) {
        Err(error) if cfg!(target_os = "linux") => Err(error.into()),
        _ => Ok(()),
    }
}
