//! A model that is taught to hear: measured as it is, trained by one strategy or several, and measured again.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
};

use models::BundleSource;
use recipes::{
    Error,
    config::{RunConfig, StrategyKind, TaskKind, list_setting, text_setting},
    run::{self, Bases},
};

use super::{
    super::{
        FAILED, Usage,
        fetch::fetch_parts,
        output::{print, status_line},
        progress::Style,
        train::{STOPPED, Teller},
    },
    Args, StrategyArg, base, check_flags,
    data::Corpora,
    data_settings, describe, go_on, import,
    judge::Judge,
    report::{Row, Table},
};
use crate::{config::Config, process};

/// Teaches a model to write what is said.
pub(super) fn teach_to_hear(
    args: &Args,
    out: &Path,
    stop: &Arc<AtomicBool>,
    style: Style,
) -> anyhow::Result<ExitCode> {
    let mut configs = Vec::new();
    for strategy in &args.strategy {
        configs.push(config(args, strategy.kind(), out).map_err(|error| Usage(error.to_string()))?);
    }
    let Some(first) = configs.first().cloned() else { return Err(Usage("no strategy".to_owned()).into()) };
    if first.task != TaskKind::Transcribe {
        let message = "--set task: has a flag: give --task; other tasks are those of speechd train";
        return Err(Usage(message.to_owned()).into());
    }
    let device = first.train.device.open().map_err(|error| Usage(error.to_string()))?;
    let hub = Config::load(None).map_err(|error| Usage(error.to_string()))?;
    let corpora = Corpora::find(&first, out);
    let are_imported = corpora.are_imported();
    let base = base(&first.model.base, corpora.missing, &hub, style)?;
    let bases = Bases { base: Some(base.clone()), parts: fetch_parts(&first, &hub, style)? };
    for config in &configs {
        check_base(args, config, &base)?;
    }

    let data = import(&first, out, are_imported, stop, style)?;
    if let Some(n_tokens) = args.new_vocabulary {
        data.learn_vocabulary(n_tokens as usize, &first, &base, style)?;
    }
    data.look(&first, &base, stop, style)?;
    for config in &mut configs {
        data.put_into(config);
    }
    if args.dry_run {
        for (config, strategy) in configs.iter().zip(&args.strategy) {
            let folder = folder(out, args, *strategy);
            // Each for itself: what an earlier one took is not counted again.
            process::reset_peak_memory();
            let mut teller = Teller::new(Style::new(true));
            let forecast = run::forecast("finetune", config, bases.clone(), &folder, &mut |told| {
                teller.tell(&told);
            })?;
            let stage = if *strategy == StrategyArg::Multistage { "; stage A comes on top" } else { "" };
            print(&describe(&format!("strategy {}", strategy.kind().name()), stage, &forecast))?;
            go_on(stop)?;
        }
        return Ok(ExitCode::SUCCESS);
    }

    let test = data.test(&first, style)?;
    let judge = Judge::new(&args.lang, &test, device, stop, style);
    let before = judge.before(&first, &base, out)?;
    let mut table = Table::new(&first, &before.scores);
    let mut has_failed = false;
    let mut page = None;
    for (config, strategy) in configs.iter().zip(&args.strategy) {
        go_on(stop)?;
        let kind = strategy.kind();
        let folder = folder(out, args, *strategy);
        if args.strategy.len() > 1 {
            style.note(&format!("strategy {}", kind.name()));
        }
        let mut teller = Teller::new(style);
        let name = format!("finetune {} ({})", args.lang, kind.name());
        let outcome = run::run(&name, config, bases.clone(), &folder, stop, &mut |told| teller.tell(&told));
        teller.end();
        match outcome {
            Ok(outcome) => {
                let Some((model, _)) = &outcome.model else {
                    let step = outcome.state.step;
                    status_line(&format!("stopped after update {step}; the same command goes on"));
                    return Ok(ExitCode::from(STOPPED));
                };
                let after = judge.report(model, &outcome, &folder)?;
                let difference = judge.difference(&before, &after)?;
                table.add(Row::trained(kind, &folder, out, &outcome, &after.scores, difference.as_ref())?);
            }
            // A gate that refuses is a result, too.
            Err(error @ Error::Gate { .. }) => {
                style.note(&error.to_string());
                has_failed |= args.strategy.len() == 1;
                table.add(Row::refused(kind, &folder, out, &error.to_string())?);
            }
            Err(error) => return Err(error.into()),
        }
        page = Some(table.write(out)?);
    }
    print(&table.to_string())?;
    if let Some(page) = page {
        style.note(&format!("as a page, with the run cards: {}", page.display()));
    }
    Ok(if has_failed { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

/// Tells what a strategy could not begin with before data are imported and other strategies run for hours.
fn check_base(args: &Args, config: &RunConfig, base: &BundleSource) -> anyhow::Result<()> {
    let mut config = config.clone();
    if args.new_vocabulary.is_some() {
        // Learnt from the data, for this base.
        config.model.tokenizer.clear();
    }
    run::check_base(&config, base).map_err(|error| match error {
        Error::Config { .. } => Usage(error.to_string()).into(),
        error => error.into(),
    })
}

/// Where a strategy's run is: in the folder itself where it is the only one.
fn folder(out: &Path, args: &Args, strategy: StrategyArg) -> PathBuf {
    if args.strategy.len() == 1 { out.to_owned() } else { out.join(strategy.kind().name()) }
}

/// The recipe with what the command line says on top.
fn config(args: &Args, kind: StrategyKind, out: &Path) -> Result<RunConfig, Error> {
    let mut settings = data_settings(args);
    settings.push(text_setting("strategy.kind", kind.name()));
    let optional = [
        ("model.base", args.model.as_deref()),
        ("model.like", args.like.as_deref()),
        ("strategy.stage.language", args.related_lang.as_deref()),
    ];
    settings.extend(optional.iter().filter_map(|(key, value)| Some(text_setting(key, (*value)?))));
    if let Some(related) = &args.related_data {
        for split in ["train", "dev"] {
            settings.push(list_setting(&format!("strategy.stage.{split}"), [format!("{related}:{split}")]));
        }
    }
    settings.extend(args.gate.map(|gate| format!("strategy.stage.gate={gate:?}")));
    settings.extend(args.epochs.map(|epochs| format!("train.max_epochs={epochs}")));
    if args.variable_length {
        settings.push("model.variable_length=true".to_owned());
    }
    // Its size is part of its name: a run of another one is another run.
    let vocabulary = args.new_vocabulary.map(|n| out.join(format!("vocabulary-{n}")).display().to_string());
    settings.extend(vocabulary.iter().map(|dir| text_setting("model.tokenizer", dir)));
    settings.extend(args.settings.iter().cloned());
    let mut config = RunConfig::load(Some(Path::new("finetune")), &settings)?;
    // What has a flag of its own decides more than the recipe: folders, names, how models are judged.
    check_flags(&[
        ("strategy.kind", "--strategy", config.strategy.kind != kind),
        ("data.language", "--lang", config.data.language != args.lang),
        ("model.base", "--model", args.model.as_ref().is_some_and(|model| *model != config.model.base)),
        (
            "model.tokenizer",
            "--new-vocabulary",
            vocabulary.is_some_and(|vocabulary| config.model.tokenizer != vocabulary),
        ),
    ])?;
    if args.no_augment {
        config.augment = Default::default();
    }
    Ok(config)
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

    #[test]
    fn what_has_a_flag_is_not_set_to_something_else() {
        let load = |more: &[&str]| {
            let words = ["finetune", "--lang", "de", "--data", "c"];
            let args = Line::try_parse_from(words.iter().chain(more)).expect("arguments").args;
            config(&args, StrategyKind::Full, Path::new("out")).map_err(|error| error.to_string())
        };
        let set = ["--set", "model.base=w"];
        assert_eq!(load(&set).expect("no flag").model.base, "w");
        let message = load(&[&["--model", "v"][..], &set].concat()).expect_err("two models");
        assert!(message.contains("model.base") && message.contains("give --model"), "{message}");
        assert_eq!(load(&["--model", "w", "--set", "model.base=w"]).expect("the same").model.base, "w");
    }
}
