//! Calls espeak-ng and flite. Both speak with a voice of their own choice when they don't know the one asked for, so their lists are
//! looked at first.

use std::{
    collections::HashSet,
    ffi::OsStr,
    io,
    path::Path,
    process::{Command, Output, Stdio},
};

use super::{script::Utterance, voice::Voice};
use crate::data::manifest::Error;

/// How to get the programs.
const INSTALL: &str = "apt-get install espeak-ng flite";
/// Words a minute that espeak-ng speaks by itself.
const ESPEAK_WORDS_PER_MIN: u64 = 175;
/// The lowest pitch asked of flite, Hz; the script's is added. Only `kal` and `kal16` heed it.
const FLITE_LOWEST_HZ: u64 = 70;

/// The programs, found with all their voices.
pub(super) struct Programs {
    espeak: &'static OsStr,
    flite: &'static OsStr,
}

impl Programs {
    /// Looks for the programs and for every voice that is wanted; `language` is that of espeak-ng where it is not English.
    ///
    /// # Errors
    /// What is missing, and how to get it.
    pub(super) fn find(wanted: &[Voice], language: Option<&str>) -> Result<Self, Error> {
        Self::find_as("espeak-ng".as_ref(), "flite".as_ref(), wanted, language)
    }

    /// As [`Programs::find`], under other names.
    pub(super) fn find_as(
        espeak: &'static OsStr,
        flite: &'static OsStr,
        wanted: &[Voice],
        language: Option<&str>,
    ) -> Result<Self, Error> {
        let (accents, variants) = (listed(espeak, "--voices")?, listed(espeak, "--voices=variant")?);
        let (accents, variants) = (column(&accents, 1), column(&variants, 4));
        language.map_or(Ok(()), |language| check_language(espeak, &accents, language))?;
        let has_flite = wanted.iter().any(|voice| matches!(voice, Voice::Flite { .. }));
        let voices = if has_flite { listed(flite, "-lv")? } else { String::new() };
        let voices: HashSet<_> = voices.split_whitespace().collect();
        for voice in wanted {
            let is_there = match voice {
                Voice::Espeak { accent, variant } => {
                    accents.contains(&**accent) && variants.contains(&*format!("!v/{variant}"))
                }
                Voice::Flite { voice } => voices.contains(*voice),
            };
            if !is_there {
                let message = format!("lacks the voice {}; a full package has it: {INSTALL}", voice.name());
                return Err(Error::Program { name: program(voice, espeak, flite), message });
            }
        }
        Ok(Self { espeak, flite })
    }

    /// Speaks into a WAV file.
    ///
    /// # Errors
    /// A program that fails, with what it says.
    pub(super) fn speak(&self, utterance: &Utterance, path: &Path) -> Result<(), Error> {
        let Utterance { spoken, has_pauses, voice, length_percent, pitch, .. } = utterance;
        let text = if *has_pauses { spoken.replace(' ', ", ") } else { spoken.to_string() };
        let name = program(voice, self.espeak, self.flite);
        let mut command = match voice {
            Voice::Espeak { accent, variant } => {
                let mut command = Command::new(self.espeak);
                command.args(["-v", &format!("{accent}+{variant}")]);
                command.args(["-s", &(ESPEAK_WORDS_PER_MIN * 100 / length_percent).to_string()]);
                if let Some(pitch) = pitch {
                    command.args(["-p", &pitch.to_string()]);
                }
                command.arg("-w").arg(path);
                // A text may begin with a dash.
                command.arg("--").arg(text);
                command
            }
            Voice::Flite { voice } => {
                let stretch =
                    format!("duration_stretch={}.{:02}", length_percent / 100, length_percent % 100);
                let mut command = Command::new(self.flite);
                command.args(["-voice", voice, "--setf", &stretch]);
                if let Some(pitch) = pitch {
                    command.args(["--setf", &format!("int_f0_target_mean={}", FLITE_LOWEST_HZ + pitch)]);
                }
                command.args(["-t", &text]).arg("-o").arg(path);
                command
            }
        };
        run(&mut command, &name).map(|_| ())
    }
}

/// Makes sure that espeak-ng has a voice, by asking for it: it knows more names than it lists, such as `en` and `zh`.
///
/// # Errors
/// A program that is not there, and a voice that it does not know.
pub(in crate::prepare) fn check_voice(espeak: &OsStr, voice: &str) -> Result<(), Error> {
    let mut command = Command::new(espeak);
    command.args(["-q", "-v", voice, "--", ""]);
    let asked = start(&mut command, &espeak.to_string_lossy())?;
    if asked.status.success() { Ok(()) } else { Err(speaks_no(espeak, voice)) }
}

fn check_language(espeak: &OsStr, known: &HashSet<&str>, language: &str) -> Result<(), Error> {
    if known.is_empty() || known.contains(language) {
        return Ok(());
    }
    Err(speaks_no(espeak, language))
}

fn speaks_no(espeak: &OsStr, voice: &str) -> Error {
    let message = format!("speaks no `{voice}`; its languages: {} --voices", espeak.display());
    Error::Program { name: espeak.to_string_lossy().into_owned(), message }
}

fn program(voice: &Voice, espeak: &OsStr, flite: &OsStr) -> String {
    match voice {
        Voice::Espeak { .. } => espeak.to_string_lossy().into_owned(),
        Voice::Flite { .. } => flite.to_string_lossy().into_owned(),
    }
}

/// What a program says.
fn listed(program: &OsStr, argument: &str) -> Result<String, Error> {
    let output = run(Command::new(program).arg(argument), &program.to_string_lossy())?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A column of a table.
fn column(table: &str, column: usize) -> HashSet<&str> {
    table.lines().filter_map(|line| line.split_whitespace().nth(column)).collect()
}

/// What a program says.
///
/// # Errors
/// A program that is not there, and one that fails, with what it says.
pub(in crate::prepare) fn run(command: &mut Command, name: &str) -> Result<Output, Error> {
    let output = start(command, name)?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let message = format!("{}: {}", output.status, said.trim());
    Err(Error::Program { name: name.to_owned(), message })
}

/// What a program says, also one that fails.
///
/// # Errors
/// A program that is not there.
fn start(command: &mut Command, name: &str) -> Result<Output, Error> {
    let failed = |message: String| Error::Program { name: name.to_owned(), message };
    command.stdin(Stdio::null()).output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => failed(format!("is not there; to get it: {INSTALL}")),
        _ => failed(error.to_string()),
    })
}
