//! `speechd tokenizer`: vocabularies of one's own texts.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Subcommand;
use models::{NewVocabulary, TextUnit, Tokenizer};
use recipes::data::manifest::Needs;

use super::{
    Usage,
    fetch::fetch,
    manifests::{manifests_and_texts, read_cuts},
    output::{print, table, write_file},
    progress::Style,
};
use crate::config::Config;

const EXAMPLES: &str = "\
Examples:
  speechd tokenizer train data/train.jsonl sentences.txt --size 1024 --languages ps --out ps-tokenizer/
  speechd tokenizer train data/train.jsonl --size 512 --out t/ --compare openai/whisper-base

A recipe takes it with model.tokenizer = \"ps-tokenizer\". Fewer tokens a word are fewer steps of the decoder; more tokens in all are
more to learn.";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Learn a byte-level vocabulary from texts, with the control tokens and times of a Whisper
    #[command(after_help = EXAMPLES)]
    Train(Train),
}

#[derive(Debug, clap::Args)]
struct Train {
    /// Manifests, directories of them, or plain texts (.txt), a text on each line
    #[arg(required = true, value_name = "TEXTS")]
    texts: Vec<PathBuf>,
    /// Tokens of text at most, the 256 bytes among them
    #[arg(long, value_name = "N", default_value_t = 1024)]
    size: usize,
    /// Codes of the languages that a prompt names; none is a model of one language
    #[arg(long, value_name = "CODES", value_delimiter = ',')]
    languages: Vec<String>,
    /// Seconds of the model's window: so far do times reach
    #[arg(long, value_name = "SECS", default_value_t = 30.0)]
    window_secs: f64,
    /// Write tokenizer.json into DIR
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Count the tokens of this model's vocabulary on the same texts, too
    #[arg(long, value_name = "PATH_OR_ID")]
    compare: Option<String>,
    /// Make each token one character; without, parts of words and words
    #[arg(long)]
    characters: bool,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let Command::Train(args) = &args.command;
    let style = Style::new(args.quiet);
    let path = args.out.join("tokenizer.json");
    if path.exists() {
        return Err(Usage(format!("{} is there already; name another directory", path.display())).into());
    }
    let texts = read_texts(&args.texts, style)?;
    let vocabulary = NewVocabulary {
        n_text_tokens: args.size,
        unit: if args.characters { TextUnit::Characters } else { TextUnit::Pieces },
        languages: args.languages.clone(),
        window_secs: args.window_secs,
    };
    let contents = vocabulary.learn(&texts).map_err(|error| Usage(error.to_string()))?;
    write_file(&path, &contents)?;
    let mut rows =
        vec![["VOCABULARY", "TOKENS A WORD", "TOKENS A CHARACTER", "LONGEST TEXT"].map(str::to_owned)];
    rows.push(fertility(&path.display().to_string(), &Tokenizer::from_text(&contents)?, &texts)?);
    if let Some(model) = &args.compare {
        let config = Config::load(None).map_err(|error| Usage(error.to_string()))?;
        let tokenizer = Tokenizer::from_source(&fetch(model, &config, style)?)?;
        rows.push(fertility(model, &tokenizer, &texts)?);
    }
    print(&table(&rows))
}

/// Texts with a space before them, as models write them: of what is translated both sides, as some models read one of them.
pub(super) fn read_texts(paths: &[PathBuf], style: Style) -> anyhow::Result<Vec<String>> {
    let mut texts = Vec::new();
    let mut add = |text: &str| {
        let text = text.trim();
        if !text.is_empty() {
            texts.push(format!(" {text}"));
        }
    };
    let (plain, others): (Vec<_>, Vec<_>) = paths.iter().cloned().partition(|path| is_plain(path));
    for path in plain {
        let contents = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        contents.lines().for_each(&mut add);
    }
    let needs = Needs { audio: false, duration: false, ..Needs::default() };
    for cut in read_cuts(&manifests_and_texts(&others)?, needs, style)? {
        add(&cut.text);
        cut.target_text.as_deref().into_iter().for_each(&mut add);
    }
    if texts.is_empty() {
        return Err(Usage("these files hold no text".to_owned()).into());
    }
    Ok(texts)
}

fn is_plain(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "txt")
}

/// A row of the table: how many tokens texts are.
fn fertility(name: &str, tokenizer: &Tokenizer, texts: &[String]) -> anyhow::Result<[String; 4]> {
    let (mut n_tokens, mut n_words, mut n_characters, mut longest) = (0, 0, 0, 0);
    for text in texts {
        let n = tokenizer.encode(text)?.len();
        n_tokens += n;
        longest = longest.max(n);
        n_words += text.split_whitespace().count();
        n_characters += text.trim().chars().count();
    }
    let share = |whole: usize| format!("{:.2}", n_tokens as f64 / whole.max(1) as f64);
    Ok([name.to_owned(), share(n_words), share(n_characters), longest.to_string()])
}
