//! A voice that is taught to read a language: recordings with their texts in, what `speechd speak` and `speechd serve` take out.

use std::{
    path::Path,
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
};

use anyhow::{Context, bail};
use audio::{FeatureSpec, LogKind};
use models::{BundleSource, Kind, Part, bundled_speaker, flow_lm::FlowLmConfig, vocos::VocosConfig};
use recipes::{
    Error,
    config::{RunConfig, TaskKind, VocoderConfig, text_setting},
    data::manifest::Cut,
    run::{self, Bases},
};

use super::{
    super::{
        Usage,
        evaluate::to_speak::check_unit,
        fetch::{fetch, fetch_parts},
        output::{print, status_line},
        progress::Style,
        train::{STOPPED, Teller},
    },
    Args, StrategyArg, base, check_flags,
    data::Corpora,
    data_settings, describe, go_on, import,
    letters::unit_of,
    speech::{Recogniser, Report},
};
use crate::{compute::Compute, config::Config, process};

/// The recipe.
const RECIPE: &str = "finetune_voice";
/// What is other for a voice that speaks already: its rate follows from its width, and it needs fewer updates.
const FROM_A_VOICE: [&str; 2] = ["optimizer.learning_rate=0.0", "train.max_steps=4000"];

/// A flag that says nothing of a voice, and why.
pub(super) fn refused_flag(args: &Args) -> Option<(&'static str, &'static str)> {
    let stages = "is not for --task speak: stages are for models that hear";
    let flags = [
        (
            "--like",
            args.like.is_some(),
            "is not for --task speak: a voice has no tokens for languages, and learns the letters that it lacks",
        ),
        (
            "--strategy",
            args.strategy != [StrategyArg::Full],
            "is not for --task speak, but full, which it is anyway: a voice is trained as a whole",
        ),
        ("--related-data", args.related_data.is_some(), stages),
        ("--related-lang", args.related_lang.is_some(), stages),
        ("--gate", args.gate.is_some(), stages),
        (
            "--new-vocabulary",
            args.new_vocabulary.is_some(),
            "is not for --task speak: a voice reads letters, and learns those that it lacks",
        ),
        (
            "--variable-length",
            args.variable_length,
            "is not for --task speak: what is spoken is as long as it is anyway",
        ),
        (
            "--no-augment",
            args.no_augment,
            "is not for --task speak: a voice learns to say texts as they were recorded, which nothing changes anyway",
        ),
    ];
    flags.into_iter().find(|(_, is_given, _)| *is_given).map(|(flag, _, why)| (flag, why))
}

/// Teaches a voice to speak as recordings do.
pub(super) fn teach_to_speak(
    args: &Args,
    out: &Path,
    stop: &Arc<AtomicBool>,
    style: Style,
) -> anyhow::Result<ExitCode> {
    let mut config = config(args).map_err(|error| Usage(error.to_string()))?;
    let device = config.train.device.open().map_err(|error| Usage(error.to_string()))?;
    let hub = Config::load(None).map_err(|error| Usage(error.to_string()))?;
    let corpora = Corpora::find(&config, out);
    let are_imported = corpora.are_imported();
    let base = match config.model.base.as_str() {
        "" if corpora.missing.is_empty() => None,
        "" => bail!(corpora.missing.join("\n")),
        name => Some(base(name, corpora.missing, &hub, style)?),
    };
    let bases = Bases { base, parts: fetch_parts(&config, &hub, style)? };
    let base = suit(&mut config, &bases, args, style)?;
    let recogniser = match &args.judge {
        None => None,
        Some(name) => {
            check_unit("--judge", unit_of(&config, base.as_ref()))?;
            let refuse = |error: models::Error| Usage(error.to_string());
            let compute = Compute::new(device, hub.transcribe.precision).map_err(refuse)?;
            let source = fetch(name, &hub, style).with_context(|| format!("--judge {name}"))?;
            let recogniser = Recogniser { name, source, compute, language: &args.lang };
            // What is wrong with it is told hours before it has its say.
            recogniser.load(style)?;
            Some(recogniser)
        }
    };

    let data = import(&config, out, are_imported, stop, style)?;
    let is_one_voice = data.look_for_voice(&config, base.as_ref(), stop, style)?;
    data.put_into(&mut config);
    if args.dry_run {
        // What was listened to before is not counted.
        process::reset_peak_memory();
        let mut teller = Teller::new(Style::new(true));
        let forecast = run::forecast(RECIPE, &config, bases, out, &mut |told| teller.tell(&told))?;
        print(&describe(&format!("a voice that reads {}", args.lang), "", &forecast))?;
        go_on(stop)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut teller = Teller::new(style);
    let name = format!("voice {}", args.lang);
    let outcome = run::run(&name, &config, bases, out, stop, &mut |told| teller.tell(&told));
    teller.end();
    let outcome = outcome?;
    let Some((model, figures)) = &outcome.model else {
        status_line(&format!("stopped after update {}; the same command goes on", outcome.state.step));
        return Ok(ExitCode::from(STOPPED));
    };
    let mut report = Report::new(&config, &outcome, (model, figures), out)?;
    print(&report.to_string())?;
    report.write(out)?;
    status_line(&format!("{}: run card {}", model.display(), outcome.card.display()));
    report.tell_use(model, style)?;
    match &recogniser {
        None => style.note(
            "held-out losses alone say how well it learnt; the same command with --judge RECOGNISER tells what is understood of its speech",
        ),
        Some(recogniser) => {
            let test = spread(data.test(&config, style)?, config.evaluate.max_utterances);
            report.judge(recogniser, model, &test, out, is_one_voice, (stop, style))?;
            report.write(out)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The recipe with what the command line says on top.
fn config(args: &Args) -> Result<RunConfig, Error> {
    let load = |of_base: &[&str]| {
        let mut settings = data_settings(args);
        let base = args.model.as_deref().or(bundled_speaker());
        settings.extend(base.map(|base| text_setting("model.base", base)));
        settings.extend(of_base.iter().map(|&setting| setting.to_owned()));
        let vocoder = args.vocoder.as_deref();
        settings.extend(vocoder.map(|vocoder| text_setting("model.parts.vocoder", vocoder)));
        settings.extend(args.epochs.map(|epochs| format!("train.max_epochs={epochs}")));
        settings.extend(args.settings.iter().cloned());
        RunConfig::load(Some(Path::new(RECIPE)), &settings)
    };
    let config = load(&[])?;
    let config = if config.model.base.is_empty() { config } else { load(&FROM_A_VOICE)? };
    let is_other =
        |given: &Option<String>, setting: &str| given.as_ref().is_some_and(|given| given != setting);
    check_flags(&[
        ("task", "--task", config.task != TaskKind::Speak),
        ("data.language", "--lang", config.data.language != args.lang),
        ("model.base", "--model", is_other(&args.model, &config.model.base)),
        ("model.parts.vocoder", "--vocoder", is_other(&args.vocoder, &config.model.parts.vocoder)),
    ])?;
    Ok(config)
}

/// Those that say something, `most` of them at most (0 is all), spread over all.
fn spread(mut cuts: Vec<Cut>, most: usize) -> Vec<Cut> {
    cuts.retain(|cut| !cut.text.trim().is_empty());
    let n = cuts.len();
    let taken = if most == 0 { n } else { n.min(most) };
    (0..taken).map(|i| cuts[i * n / taken].clone()).collect()
}

/// Makes sure that the voice to start from and the vocoder are such and speak of the same features, of which a new voice gets those of its
/// vocoder. Says what the voice to start from is.
fn suit(
    config: &mut RunConfig,
    bases: &Bases,
    args: &Args,
    style: Style,
) -> anyhow::Result<Option<FlowLmConfig>> {
    let name = config.model.base.clone();
    let base = bases.base.as_ref().map(|source| voice(&name, source)).transpose()?;
    let part = bases.parts.iter().find(|(part, _)| *part == Part::Vocoder);
    let vocoder = config.model.parts.vocoder.clone();
    let features = part.map(|(_, source)| features_of_vocoder(&vocoder, source)).transpose()?;
    match (&base, &features) {
        (Some(base), Some(features)) if base.feature_spec != *features => {
            let message = format!(
                "--vocoder {vocoder}: makes sound of other features than {name} speaks; take the one that was trained with them, or \
                 leave the flag out"
            );
            return Err(Usage(message).into());
        }
        (None, Some(features)) => config.vocoder = adopted(config, features, &vocoder, args)?,
        _ => {}
    }
    if base.is_none() {
        style.note(&format!(
            "no voice to start from: a new one is trained, by the recipe {RECIPE}; --model names one that there is"
        ));
    }
    if features.is_none() && base.as_ref().is_none_or(|base| base.vocoder.is_none()) {
        style.note(
            "without a vocoder it will sound hollow; give one by --vocoder, now or when it is trained (speechd train vocoder_en trains one)",
        );
    }
    if let Some(base) = &base {
        let most = base.max_prompt_patches as f64 / base.patch_rate();
        let is_own = args.settings.iter().any(|setting| setting.starts_with("speech.prompt_secs"));
        let [least, longest] = config.speech.prompt_secs;
        if longest > most && !is_own {
            style.note(&format!(
                "{name} hears voice prompts of at most {most:.2} s: speech.prompt_secs follows"
            ));
            config.speech.prompt_secs = [least.min(most), most];
        }
    }
    Ok(base)
}

/// A voice to start from.
fn voice(name: &str, source: &BundleSource) -> anyhow::Result<FlowLmConfig> {
    let wrap = || format!("model {name}");
    let message = match Kind::of(source).with_context(wrap)? {
        Kind::Speaks => return FlowLmConfig::read(source).with_context(wrap),
        Kind::Hears => {
            "it turns speech into text, and no voice starts from it; leave --task speak out, or name a voice"
        }
        Kind::Vocodes => "it is a vocoder alone, which --vocoder takes; name a voice, or none",
    };
    Err(Usage(format!("--model {name}: {message}")).into())
}

/// What a vocoder, or that of a voice, makes sound of.
fn features_of_vocoder(name: &str, source: &BundleSource) -> anyhow::Result<FeatureSpec> {
    let wrap = || format!("vocoder {name}");
    let (features, message) = match Kind::of(source).with_context(wrap)? {
        Kind::Vocodes => (Some(VocosConfig::read(source).with_context(wrap)?.feature_spec), ""),
        Kind::Speaks => {
            let vocoder = FlowLmConfig::read(source).with_context(wrap)?.vocoder;
            (vocoder.map(|vocoder| vocoder.feature_spec), "is a voice without a vocoder")
        }
        Kind::Hears => (None, "is no vocoder, nor a voice that has one"),
    };
    features.ok_or_else(|| Usage(format!("--vocoder {name}: {message}")).into())
}

/// The settings by which a new voice speaks the features of a vocoder.
fn adopted(
    config: &RunConfig,
    features: &FeatureSpec,
    vocoder: &str,
    args: &Args,
) -> Result<VocoderConfig, Usage> {
    let log_floor = match features.log {
        LogKind::Ln { floor } => floor,
        _ => config.vocoder.log_floor,
    };
    let (sample_rate, n_mels) = (features.sample_rate, features.n_mels);
    let adopted = VocoderConfig { sample_rate, n_mels, log_floor, ..config.vocoder.clone() };
    if adopted.feature_spec() != *features {
        return Err(Usage(format!(
            "--vocoder {vocoder}: makes sound of features that no setting gives a new voice; start from the voice that it belongs to \
             (--model)"
        )));
    }
    if adopted != config.vocoder && args.settings.iter().any(|setting| setting.starts_with("vocoder")) {
        return Err(Usage(format!("--set vocoder: {vocoder} decides that; leave it out")));
    }
    Ok(adopted)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(more: &[&str]) -> Args {
        let words = ["finetune", "--task", "speak", "--lang", "de", "--data", "c"];
        Line::try_parse_from(words.iter().chain(more)).expect("arguments").args
    }

    #[test]
    fn flags_of_models_that_hear_are_refused_by_name() {
        for (more, flag) in [
            (&["--like", "fa"][..], "--like"),
            (&["--strategy", "lora"], "--strategy"),
            (&["--strategy", "full,lora"], "--strategy"),
            (&["--related-data", "d"], "--related-data"),
            (&["--related-lang", "fa"], "--related-lang"),
            (&["--gate", "0.5"], "--gate"),
            (&["--new-vocabulary", "512"], "--new-vocabulary"),
            (&["--variable-length"], "--variable-length"),
            (&["--no-augment"], "--no-augment"),
        ] {
            let (refused, why) = refused_flag(&parse(more)).expect(flag);
            assert!(refused == flag && why.starts_with("is not for --task speak"), "{flag}: {why}");
        }
        assert_eq!(refused_flag(&parse(&["--strategy", "full", "--epochs", "3", "--vocoder", "v"])), None);
    }

    #[test]
    fn a_voice_that_is_there_learns_by_its_own_rate_and_settings_win() {
        let load = |more: &[&str]| config(&parse(more)).map_err(|error| error.to_string());
        let from_one = load(&["--model", "v", "--vocoder", "w"]).expect("settings");
        assert_eq!((from_one.optimizer.learning_rate, from_one.train.max_steps), (0.0, 4000));
        assert_eq!((&*from_one.model.base, &*from_one.model.parts.vocoder), ("v", "w"));
        assert_eq!((from_one.data.train, &*from_one.data.language), (vec!["c:train".to_owned()], "de"));
        let new = load(&["--set", "model.base="]).expect("settings");
        assert!(new.model.base.is_empty() && new.optimizer.learning_rate > 0.0 && new.train.max_steps > 4000);
        let own = load(&["--model", "v", "--set", "train.max_steps=7", "--epochs", "2"]).expect("settings");
        assert_eq!((own.train.max_steps, own.train.max_epochs), (7, 2));
        for (more, flag) in [
            (&["--set", "data.language=fr"][..], "--lang"),
            (&["--vocoder", "v", "--set", "model.parts.vocoder=w"], "--vocoder"),
            (&["--model", "v", "--set", "model.base="], "--model"),
        ] {
            let message = load(more).expect_err(flag);
            assert!(message.contains(&format!("give {flag}")), "{message}");
        }
        let message = load(&["--set", "augment.noise.probability=0.5"]).expect_err("augmentation");
        assert!(message.contains("augment"), "{message}");
    }

    #[test]
    fn a_new_voice_speaks_the_features_of_its_vocoder() {
        let mut config = config(&parse(&["--set", "model.base="])).expect("settings");
        let features = FeatureSpec { log: LogKind::Ln { floor: 1e-5 }, ..FeatureSpec::vocoder(24_000, 100) };
        let found = adopted(&config, &features, "v", &parse(&[])).expect("adopted");
        assert_eq!(found.feature_spec(), features);
        let Usage(message) =
            adopted(&config, &features, "v", &parse(&["--set", "vocoder.n_mels=80"])).expect_err("refused");
        assert!(message.contains("--set vocoder: v decides"), "{message}");
        config.vocoder = found;
        // What says the same is no contradiction.
        assert!(adopted(&config, &features, "v", &parse(&["--set", "vocoder.n_mels=100"])).is_ok());
        let other = FeatureSpec { hop_samples: 300, ..features };
        let Usage(message) = adopted(&config, &other, "v", &parse(&[])).expect_err("refused");
        assert!(message.contains("no setting gives"), "{message}");
    }
}
