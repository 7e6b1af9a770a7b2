//! `speechd data phonemes`: what is said, as sounds.

use std::{fs, path::PathBuf, sync::Mutex};

use recipes::{
    data::manifest::{self, Needs, Writer},
    prepare::add_phonemes,
};

use super::{
    super::{
        Usage,
        manifests::manifests_and_texts,
        output::{print, table},
        progress::{Items, Style},
    },
    places,
};

const EXAMPLES: &str = "\
Examples:
  speechd data phonemes data/train.jsonl data/dev.jsonl --out phonemes/
  speechd data phonemes texts/ --voice en-us --out phonemes/

Each manifest keeps its name; its rows get `phonemes`, by espeak-ng, the first of each word marked by ▁. Recipes with target.unit = \"phonemes\" read them.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Manifests, or directories of them
    #[arg(required = true, value_name = "MANIFESTS")]
    manifests: Vec<PathBuf>,
    /// Write manifests into DIR
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Voice of espeak-ng [default: that of each row's language]
    #[arg(long, value_name = "NAME")]
    voice: Option<String>,
    /// Language of rows that state none, as a code
    #[arg(short, long, value_name = "CODE")]
    language: Option<String>,
    /// Replace manifests that are there
    #[arg(long)]
    overwrite: bool,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let style = Style::new(args.quiet);
    let sources = manifests_and_texts(&args.manifests)?;
    let places = places(&sources, &args.out, args.overwrite)?;
    // Texts alone have phonemes, too.
    let needs = Needs { text: false, audio: false, duration: false, ..Needs::default() };
    let mut rows = vec![["MANIFEST", "CUTS"].map(str::to_owned)];
    for (source, (place, name)) in sources.iter().zip(&places) {
        let read = manifest::read(source, needs)?;
        read.rejected.iter().for_each(|rejected| style.note(&format!("left out: {rejected}")));
        // The one place where the rows that are left out still stand.
        if !read.rejected.is_empty() && fs::canonicalize(source).ok() == fs::canonicalize(place).ok() {
            let message = format!(
                "{}: would lose the {} of its rows that cannot be used; --out writes elsewhere",
                place.display(),
                read.rejected.len()
            );
            return Err(Usage(message).into());
        }
        let mut cuts = read.cuts;
        let items = Mutex::new(Items::start(style, &format!("spelling {name}"), None));
        let progress = |done, all| {
            if let Ok(mut items) = items.lock() {
                items.update_of(done, all);
            }
        };
        let added = add_phonemes(&mut cuts, args.voice.as_deref(), args.language.as_deref(), &progress);
        if let Ok(items) = items.into_inner() {
            items.clear();
        }
        added?;
        let mut writer = Writer::create(place)?;
        cuts.iter().try_for_each(|cut| writer.write(cut))?;
        writer.finish()?;
        rows.push([place.display().to_string(), cuts.len().to_string()]);
    }
    print(&table(&rows))
}
