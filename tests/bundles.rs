//! A broken model directory is refused by name: the file, and the key or tensor in it. Nothing panics.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use candle_core::Device;
use models::{Bundle, DecodeOptions, Error, Task, TextUnit, Told, Transcriber, Weights};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::parity::features;
use crate::support::{fixture, json as read_json, transcriber};

pub const FILES: [&str; 5] = [
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "model.safetensors",
];

/// A copy of a good bundle, to be broken.
pub fn copy() -> Result<TempDir> {
    let dir = tempfile::tempdir()?;
    for file in FILES {
        std::fs::copy(fixture("whisper-80").join(file), dir.path().join(file))?;
    }
    Ok(dir)
}

fn load(dir: &Path) -> Result<Transcriber, Error> {
    Transcriber::load(Bundle::open(dir)?, &Device::Cpu)
}

/// Loading fails with an error that names the file and, in it, `key`.
fn ensure_refused(dir: &Path, file: &str, key: &str) -> Result<()> {
    let error = load(dir).err().with_context(|| format!("{file} with a bad {key} was accepted"))?;
    let (path, detail) = match &error {
        Error::File { path, message } => (path, message),
        Error::Key { path, key, .. } => (path, key),
        other => bail!("{file}, {key}: the error names no file: {other}"),
    };
    ensure!(path.ends_with(file), "the error should name {file}: {error}");
    ensure!(detail.contains(key), "the error should name `{key}`: {error}");
    Ok(())
}

/// Sets the value at a pointer such as `/lang_to_id/<|ps|>`.
fn set(dir: &Path, file: &str, pointer: &str, value: Value) -> Result<()> {
    let path = dir.join(file);
    let mut all = read_json(&path)?;
    let (parent, key) = pointer.rsplit_once('/').context("a pointer")?;
    all.pointer_mut(parent)
        .and_then(Value::as_object_mut)
        .with_context(|| format!("{file} has no {parent}"))?
        .insert(key.to_owned(), value);
    Ok(std::fs::write(path, all.to_string())?)
}

/// A tensor as `safetensors` writes it.
struct Stored {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn stored(dir: &Path) -> Result<Vec<Stored>> {
    let bytes = std::fs::read(dir.join("model.safetensors"))?;
    let tensors = SafeTensors::deserialize(&bytes)?.tensors();
    let mut stored: Vec<Stored> = tensors
        .into_iter()
        .map(|(name, view)| Stored {
            name,
            dtype: view.dtype(),
            shape: view.shape().to_vec(),
            bytes: view.data().to_vec(),
        })
        .collect();
    stored.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(stored)
}

fn store(path: &Path, tensors: &[Stored]) -> Result<()> {
    let views = tensors
        .iter()
        .map(|tensor| Ok((&tensor.name, TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes)?)))
        .collect::<Result<Vec<_>>>()?;
    Ok(safetensors::serialize_to_file(views, None, path)?)
}

/// Changes one tensor of a copy.
fn change(dir: &Path, name: &str, edit: impl FnOnce(&mut Stored)) -> Result<()> {
    let mut tensors = stored(dir)?;
    edit(tensors.iter_mut().find(|tensor| tensor.name == name).context("the tensor")?);
    store(&dir.join("model.safetensors"), &tensors)
}

#[test]
fn a_missing_file_is_named() -> Result<()> {
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        let dir = copy()?;
        std::fs::remove_file(dir.path().join(file))?;
        ensure_refused(dir.path(), file, "")?;
    }
    let nowhere = Path::new("no/such/bundle");
    ensure!(load(nowhere).is_err_and(|error| error.to_string().contains("no/such/bundle")));
    Ok(())
}

#[test]
fn a_bundle_needs_no_generation_and_no_preprocessor_configuration() -> Result<()> {
    let dir = copy()?;
    for file in ["generation_config.json", "preprocessor_config.json"] {
        std::fs::remove_file(dir.path().join(file))?;
    }
    let transcriber = load(dir.path())?;
    let special = transcriber.special_tokens();
    ensure!(special.previous == Some(313) && special.no_timestamps == Some(315));
    Ok(())
}

#[test]
fn an_architecture_that_is_not_known_is_refused() -> Result<()> {
    for value in [json!("bert"), json!(7), Value::Null, json!("Whisper")] {
        let dir = copy()?;
        set(dir.path(), "config.json", "/model_type", value)?;
        ensure_refused(dir.path(), "config.json", "model_type")?;
    }
    for text in ["", "[]", "null", "{", "\u{feff}{}", "{\"model_type\":"] {
        let dir = copy()?;
        std::fs::write(dir.path().join("config.json"), text)?;
        ensure_refused(dir.path(), "config.json", "")?;
    }
    Ok(())
}

#[test]
fn sizes_that_cannot_be_are_refused_with_their_key() -> Result<()> {
    let dir = copy()?;
    let good = std::fs::read(dir.path().join("config.json"))?;
    let keys = [
        "d_model",
        "encoder_layers",
        "encoder_attention_heads",
        "encoder_ffn_dim",
        "decoder_layers",
        "decoder_attention_heads",
        "decoder_ffn_dim",
        "num_mel_bins",
        "max_source_positions",
        "max_target_positions",
        "vocab_size",
    ];
    for key in keys {
        for value in
            [json!(0), json!(1u64 << 40), json!(u64::MAX), json!(-1), json!(1.5), json!("8"), Value::Null]
        {
            set(dir.path(), "config.json", &format!("/{key}"), value)?;
            ensure_refused(dir.path(), "config.json", key)?;
            std::fs::write(dir.path().join("config.json"), &good)?;
        }
    }
    for (key, value) in [
        ("encoder_attention_heads", json!(5)),
        ("decoder_attention_heads", json!(64)),
        ("num_mel_bins", json!(1 << 20)),
        ("activation_function", json!("relu")),
        ("median_filter_width", json!(4)),
        ("median_filter_width", json!(u64::MAX)),
        ("tie_word_embeddings", json!("yes")),
        ("suppress_tokens", json!([1, "x"])),
    ] {
        set(dir.path(), "config.json", &format!("/{key}"), value)?;
        ensure_refused(dir.path(), "config.json", key)?;
        std::fs::write(dir.path().join("config.json"), &good)?;
    }
    Ok(())
}

#[test]
fn every_size_contradicts_some_tensor_when_it_changes() -> Result<()> {
    let dir = copy()?;
    let good = std::fs::read(dir.path().join("config.json"))?;
    for (key, value, tensor) in [
        ("d_model", 64, "model.encoder."),
        ("encoder_layers", 3, "model.encoder.layers.2."),
        ("encoder_layers", 1 << 20, "model.encoder.layers.2."),
        ("encoder_ffn_dim", 65, "fc1.weight"),
        ("decoder_layers", 5, "model.decoder.layers.2."),
        ("decoder_ffn_dim", 1, "fc1.weight"),
        ("num_mel_bins", 128, "model.encoder.conv1.weight"),
        ("max_source_positions", 1501, "model.encoder.embed_positions.weight"),
        ("max_target_positions", 1 << 20, "model.decoder.embed_positions.weight"),
        ("vocab_size", 1 << 20, "model.decoder.embed_tokens.weight"),
    ] {
        // The features contradict the preprocessor before any tensor is looked at.
        let _ = std::fs::remove_file(dir.path().join("preprocessor_config.json"));
        set(dir.path(), "config.json", &format!("/{key}"), json!(value))?;
        ensure_refused(dir.path(), "model.safetensors", tensor)?;
        std::fs::write(dir.path().join("config.json"), &good)?;
    }
    set(dir.path(), "config.json", "/tie_word_embeddings", json!(false))?;
    ensure_refused(dir.path(), "model.safetensors", "proj_out.weight")
}

#[test]
fn a_tensor_that_is_missing_or_has_another_shape_is_named() -> Result<()> {
    let name = "model.decoder.layers.1.encoder_attn.k_proj.weight";
    let dir = copy()?;
    change(dir.path(), name, |tensor| tensor.shape = vec![16, 64])?;
    ensure_refused(dir.path(), "model.safetensors", name)?;
    change(dir.path(), name, |tensor| tensor.shape = vec![32 * 32])?;
    ensure_refused(dir.path(), "model.safetensors", name)?;
    let mut tensors = stored(dir.path())?;
    tensors.retain(|tensor| tensor.name != name);
    store(&dir.path().join("model.safetensors"), &tensors)?;
    ensure_refused(dir.path(), "model.safetensors", name)
}

#[test]
fn only_finite_floats_are_weights() -> Result<()> {
    let name = "model.encoder.layers.0.fc1.bias";
    for (dtype, width) in [(Dtype::I8, 1), (Dtype::U8, 1), (Dtype::I64, 8), (Dtype::F64, 8), (Dtype::BOOL, 1)]
    {
        let dir = copy()?;
        change(dir.path(), name, |tensor| {
            tensor.dtype = dtype;
            tensor.bytes = vec![0; tensor.shape.iter().product::<usize>() * width];
        })?;
        ensure_refused(dir.path(), "model.safetensors", name)?;
    }
    let bad: [(Dtype, &[u8]); 5] = [
        (Dtype::F16, &[0x00, 0x7e]),
        (Dtype::F16, &[0x00, 0xfc]),
        (Dtype::BF16, &[0x80, 0x7f]),
        (Dtype::F32, &[0, 0, 0xc0, 0x7f]),
        (Dtype::F32, &[0, 0, 0x80, 0xff]),
    ];
    for (dtype, value) in bad {
        let dir = copy()?;
        change(dir.path(), name, |tensor| {
            let n_values = tensor.shape.iter().product::<usize>();
            tensor.dtype = dtype;
            tensor.bytes = vec![0; n_values * value.len()];
            // The last value: a check of the first ones would not see it.
            let last = tensor.bytes.len() - value.len();
            tensor.bytes[last..].copy_from_slice(value);
        })?;
        ensure_refused(dir.path(), "model.safetensors", name)?;
    }
    Ok(())
}

#[test]
fn weights_cut_off_anywhere_are_refused() -> Result<()> {
    let dir = copy()?;
    let path = dir.path().join("model.safetensors");
    let whole = std::fs::read(&path)?;
    let n_header = u64::from_le_bytes(whole[..8].try_into()?) as usize + 8;
    let edges = [0, 1, 7, 8, 9, n_header - 1, n_header, n_header + 1, whole.len() - 1];
    let spread = (1..40).map(|i| whole.len() * i / 40);
    for n in edges.into_iter().chain(spread) {
        std::fs::write(&path, &whole[..n])?;
        ensure_refused(dir.path(), "model.safetensors", "")?;
    }
    // Bytes that no tensor describes are as suspicious as bytes that are missing.
    std::fs::write(&path, [whole.as_slice(), &[0]].concat())?;
    ensure_refused(dir.path(), "model.safetensors", "")
}

fn with_header(n_claimed: u64, header: &[u8], n_data: usize) -> Vec<u8> {
    [&n_claimed.to_le_bytes(), header, &vec![0; n_data]].concat()
}

#[test]
fn a_forged_header_is_refused_before_anything_is_allocated_for_it() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("model.safetensors");
    for n_claimed in [u64::MAX, u64::MAX - 7, 1 << 62, 1 << 40, 50 << 20, 3, 1, 0] {
        std::fs::write(&path, with_header(n_claimed, b"{}", 0))?;
        let error = Weights::open(dir.path()).err().with_context(|| format!("{n_claimed} was accepted"))?;
        ensure!(error.to_string().contains("model.safetensors"), "{error}");
    }
    for (header, n_data) in [
        // Not JSON, or not the JSON of a header.
        ("{", 0),
        ("[]", 0),
        ("null", 0),
        (r#"{"a":1}"#, 0),
        (r#"{"a":{"dtype":"F32","shape":[1]}}"#, 4),
        (r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, 4),
        (r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}}"#, 4),
        (r#"{"__metadata__":{"format":1},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, 4),
        // A type that is not known.
        (r#"{"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}}"#, 4),
        // Offsets: backwards, beyond the end, with a hole, on top of each other, overflowing.
        (r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#, 4),
        (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 4),
        (r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#, 8),
        (
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#,
            12,
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
            4,
        ),
        (r#"{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}}"#, 0),
        (r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}"#, 4),
        (r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615]}}"#, 4),
        (r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551616]}}"#, 4),
        // Bytes that do not match the shape.
        (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, 4),
        (r#"{"a":{"dtype":"F16","shape":[1],"data_offsets":[0,4]}}"#, 4),
        (r#"{"a":{"dtype":"F32","shape":[],"data_offsets":[0,0]}}"#, 0),
    ] {
        std::fs::write(&path, with_header(header.len() as u64, header.as_bytes(), n_data))?;
        let error = Weights::open(dir.path()).err().with_context(|| format!("{header} was accepted"))?;
        ensure!(error.to_string().contains("model.safetensors"), "{header}: {error}");
    }
    let deep = "[".repeat(200_000);
    std::fs::write(&path, with_header(deep.len() as u64, deep.as_bytes(), 0))?;
    ensure!(Weights::open(dir.path()).is_err(), "deep nesting was accepted");
    Ok(())
}

#[test]
fn features_of_another_kind_are_refused() -> Result<()> {
    for (key, value) in [
        ("feature_size", json!(128)),
        ("sampling_rate", json!(8000)),
        ("hop_length", json!(320)),
        ("n_fft", json!(512)),
        ("nb_max_frames", json!(1500)),
        ("feature_size", json!("80")),
        ("feature_size", Value::Null),
        ("hop_length", json!(-160)),
    ] {
        let dir = copy()?;
        set(dir.path(), "preprocessor_config.json", &format!("/{key}"), value)?;
        ensure_refused(dir.path(), "preprocessor_config.json", key)?;
    }
    let dir = copy()?;
    std::fs::write(dir.path().join("preprocessor_config.json"), "no JSON")?;
    ensure_refused(dir.path(), "preprocessor_config.json", "")
}

#[test]
fn token_ids_lie_inside_the_vocabulary() -> Result<()> {
    for id in [1817, u32::MAX] {
        for key in ["decoder_start_token_id", "eos_token_id"] {
            let dir = copy()?;
            set(dir.path(), "config.json", &format!("/{key}"), json!(id))?;
            ensure_refused(dir.path(), "config.json", key)?;
        }
        for (pointer, key, value) in [
            ("/lang_to_id/<|ps|>", "<|ps|>", json!(id)),
            ("/task_to_id/translate", "translate", json!(id)),
            ("/suppress_tokens", "suppress_tokens", json!([1, id])),
            ("/begin_suppress_tokens", "begin_suppress_tokens", json!([id])),
            ("/no_timestamps_token_id", "no_timestamps_token_id", json!(id)),
            ("/prev_sot_token_id", "prev_sot_token_id", json!(id)),
        ] {
            let dir = copy()?;
            set(dir.path(), "generation_config.json", pointer, value)?;
            ensure_refused(dir.path(), "generation_config.json", key)?;
        }
    }
    for (key, value) in [
        ("suppress_tokens", json!([-1])),
        ("lang_to_id", json!({"<|ps|>": "308"})),
        ("max_initial_timestamp_index", json!(-1)),
        ("is_multilingual", json!(1)),
    ] {
        let dir = copy()?;
        set(dir.path(), "generation_config.json", &format!("/{key}"), value)?;
        ensure_refused(dir.path(), "generation_config.json", key)?;
    }
    // Without a generation_config.json the lists of config.json count.
    for key in ["suppress_tokens", "begin_suppress_tokens"] {
        let dir = copy()?;
        std::fs::remove_file(dir.path().join("generation_config.json"))?;
        set(dir.path(), "config.json", &format!("/{key}"), json!([5, 1817]))?;
        ensure_refused(dir.path(), "config.json", key)?;
    }
    Ok(())
}

/// The tokenizer of another checkpoint: its special tokens have no embedding here.
#[test]
fn a_tokenizer_with_more_tokens_than_the_model_is_refused() -> Result<()> {
    for (vocab_size, key) in [(311, "<|transcribe|>"), (305, "<|transcribe|>")] {
        let dir = copy()?;
        std::fs::remove_file(dir.path().join("generation_config.json"))?;
        set(dir.path(), "config.json", "/vocab_size", json!(vocab_size))?;
        change(dir.path(), "model.decoder.embed_tokens.weight", |tensor| {
            tensor.shape[0] = vocab_size;
            tensor.bytes.truncate(vocab_size * 32 * 2);
        })?;
        ensure_refused(dir.path(), "tokenizer.json", key)?;
    }
    Ok(())
}

#[test]
fn alignment_heads_exist() -> Result<()> {
    for heads in
        [json!([[0, 1], [2, 0]]), json!([[0, 2]]), json!([[u64::MAX, 0]]), json!([[0]]), json!([[-1, 0]])]
    {
        let dir = copy()?;
        set(dir.path(), "generation_config.json", "/alignment_heads", heads)?;
        ensure_refused(dir.path(), "generation_config.json", "alignment_heads")?;
    }
    Ok(())
}

#[test]
fn a_checkpoint_says_how_many_hypotheses_are_kept_and_a_request_says_it_better() -> Result<()> {
    let dir = copy()?;
    let (silent, asked) =
        (DecodeOptions::default(), DecodeOptions { beam_size: Some(2), ..DecodeOptions::default() });
    ensure!(load(dir.path())?.beam_size(&silent) == 1);
    set(dir.path(), "generation_config.json", "/num_beams", json!(5))?;
    let transcriber = load(dir.path())?;
    ensure!((transcriber.beam_size(&silent), transcriber.beam_size(&asked)) == (5, 2));
    // It is what it writes, too.
    let clip =
        || audio::Waveform { samples: (0..16_000).map(|t| (t as f32).sin()).collect(), sample_rate: 16_000 };
    let text = |options: DecodeOptions| -> Result<_> {
        let options = DecodeOptions { language: Some("ps".to_owned()), fallback: false, ..options };
        Ok(transcriber.transcribe(clip(), &options, &mut |_| {})?.segments)
    };
    ensure!(text(silent.clone())? == text(DecodeOptions { beam_size: Some(5), ..silent.clone() })?);
    // A server has room for so many rows: the checkpoint does with fewer, a request would be refused.
    let narrow = transcriber.with_max_beams(3);
    ensure!((narrow.beam_size(&silent), narrow.beam_size(&asked)) == (3, 2));
    for n in [0, 65] {
        set(dir.path(), "generation_config.json", "/num_beams", json!(n))?;
        ensure_refused(dir.path(), "generation_config.json", "num_beams")?;
    }
    Ok(())
}

#[test]
fn tokenizers_that_are_none_are_refused() -> Result<()> {
    for text in [
        "",
        "{}",
        "[]",
        "null",
        r#"{"model":{"type":"BPE"}}"#,
        // The library panics on these.
        r#"{"version":"1.0","normalizer":{"type":"Precompiled","precompiled_charsmap":"x"}}"#,
        r#"{"version":"1.0","decoder":{"type":"#,
        r#"{"version":"1.0","model":{"type":"BPE","vocab":{"a":0},"merges":["a b"]}}"#,
    ] {
        let dir = copy()?;
        std::fs::write(dir.path().join("tokenizer.json"), text)?;
        ensure_refused(dir.path(), "tokenizer.json", "")?;
    }
    Ok(())
}

/// Splits a copy's weights in two files with an index.
fn shard(dir: &Path) -> Result<()> {
    let first = stored(dir)?;
    let mut first = first;
    let second = first.split_off(first.len() / 2);
    let mut map = serde_json::Map::new();
    for (name, tensors) in
        [("model-00001-of-00002.safetensors", &first), ("model-00002-of-00002.safetensors", &second)]
    {
        store(&dir.join(name), tensors)?;
        map.extend(tensors.iter().map(|tensor| (tensor.name.clone(), json!(name))));
    }
    std::fs::remove_file(dir.join("model.safetensors"))?;
    let index = json!({"metadata": {"total_size": 1}, "weight_map": map});
    Ok(std::fs::write(dir.join(INDEX), index.to_string())?)
}

const INDEX: &str = "model.safetensors.index.json";

#[test]
fn weights_in_shards_are_the_same_weights() -> Result<()> {
    let dir = copy()?;
    shard(dir.path())?;
    let (whole, shards) = (transcriber(&fixture("whisper-80"))?, load(dir.path())?);
    let encode = |model: &Transcriber| -> Result<Vec<f32>> {
        Ok(model.encode(features(0, 80, 3000))?.flatten_all()?.to_vec1()?)
    };
    ensure!(encode(&whole)? == encode(&shards)?);
    let weights = Weights::open(dir.path())?;
    let one = Weights::open(&fixture("whisper-80"))?;
    ensure!(weights.n_parameters() == one.n_parameters() && weights.paths().count() == 2);
    Ok(())
}

#[test]
fn a_broken_index_is_refused() -> Result<()> {
    let dir = copy()?;
    let whole = std::fs::read(dir.path().join("model.safetensors"))?;
    shard(dir.path())?;
    // A file that exists outside of the bundle must not be opened through it.
    let outside = tempfile::tempdir()?;
    std::fs::write(outside.path().join("other.safetensors"), &whole)?;
    let elsewhere = outside.path().join("other.safetensors").display().to_string();
    for name in
        ["../model.safetensors", "..", ".", "/", "", "a/b.safetensors", "./x", "x/", elsewhere.as_str()]
    {
        let index = json!({"weight_map": {"model.encoder.conv1.weight": name}});
        std::fs::write(dir.path().join(INDEX), index.to_string())?;
        ensure_refused(dir.path(), INDEX, name)?;
    }
    for text in ["", "{}", "[]", r#"{"weight_map":[]}"#, r#"{"weight_map":{}}"#, r#"{"weight_map":{"a":1}}"#]
    {
        std::fs::write(dir.path().join(INDEX), text)?;
        ensure_refused(dir.path(), INDEX, "")?;
    }
    let index = json!({"weight_map": {"a": "not-there.safetensors"}});
    std::fs::write(dir.path().join(INDEX), index.to_string())?;
    ensure_refused(dir.path(), "not-there.safetensors", "")
}

#[test]
fn a_tensor_in_two_shards_or_in_none_is_named() -> Result<()> {
    let dir = copy()?;
    shard(dir.path())?;
    let second = dir.path().join("model-00002-of-00002.safetensors");
    std::fs::copy(dir.path().join("model-00001-of-00002.safetensors"), &second)?;
    ensure_refused(dir.path(), "model-00002-of-00002.safetensors", "model.")?;
    store(&second, &[])?;
    ensure_refused(dir.path(), INDEX, "model.")
}

#[test]
fn a_model_says_which_languages_it_has_learnt_to_hear() -> Result<()> {
    let canary = || Bundle::open(&fixture("canary"));
    let (ps, de) = (
        DecodeOptions { language: Some("ps".to_owned()), ..DecodeOptions::default() },
        DecodeOptions { language: Some("de".to_owned()), ..DecodeOptions::default() },
    );
    let loaded = |bundle| Transcriber::load(bundle, &Device::Cpu);
    let all = loaded(canary()?)?;
    let unsaid =
        all.check(&DecodeOptions::default()).map_or_else(|error| error.to_string(), |()| String::new());
    ensure!(unsaid.starts_with("language: is needed") && all.check(&de).is_ok(), "{unsaid}");

    let pashto = canary()?.with_source_languages(&["ps"])?;
    let heard = loaded(pashto)?;
    ensure!(heard.languages().eq(["ps"]) && heard.check(&DecodeOptions::default()).is_ok());
    let prompt = |code| heard.special_tokens().prompt(Told { language: code, ..Told::default() });
    ensure!(prompt(None)? == prompt(Some("ps"))?);
    let refused = heard.check(&de).map_or_else(|error| error.to_string(), |()| String::new());
    ensure!(refused == "language: `de` is not among the model's: ps", "{refused}");
    // What it hears is not all that it may write.
    let german = DecodeOptions { task: Task::Translate, to_language: Some("de".to_owned()), ..ps.clone() };
    ensure!(heard.check(&german).is_ok() && heard.check(&ps).is_ok());

    // A language that is added may be spoken.
    let more = canary()?.with_source_languages(&["ps"])?.with_language("xx", "de")?;
    ensure!(more.description().vocabulary()?.2.source_languages == ["ps", "xx"]);
    // One that a new vocabulary leaves out may not.
    let description = more.description();
    let learnt =
        description.learn_vocabulary(300, TextUnit::Characters, &["ps".to_owned()], &["دوه".to_owned()])?;
    let fewer = more.with_vocabulary(&learnt)?;
    ensure!(fewer.description().vocabulary()?.2.source_languages == ["ps"]);

    for (name, codes) in [("canary", &["fr"][..]), ("canary", &[]), ("parakeet", &["en"])] {
        let Err(Error::Key { key, .. }) = Bundle::open(&fixture(name))?.with_source_languages(codes) else {
            bail!("{name}: {codes:?} is accepted")
        };
        ensure!(key == "source_languages");
    }
    // A Whisper looks for no others.
    let dir = copy()?;
    let whisper = loaded(Bundle::open(dir.path())?.with_source_languages(&["de"])?)?;
    ensure!(whisper.languages().eq(["de"]) && whisper.check(&ps).is_err());
    Ok(())
}

#[test]
fn a_model_says_which_languages_it_has_learnt_to_translate_into() -> Result<()> {
    let dir = copy()?;
    let translation = |code: Option<&str>| DecodeOptions {
        language: Some("de".to_owned()),
        task: Task::Translate,
        to_language: code.map(str::to_owned),
        ..DecodeOptions::default()
    };
    let refused = |transcriber: &Transcriber, code: Option<&str>| {
        transcriber
            .check(&translation(code))
            .map_or_else(|error| error.to_string(), |()| "accepted".to_owned())
    };
    let (english, ps) = (load(dir.path())?, Some("ps"));
    ensure!(refused(&english, None) == "accepted");
    ensure!(refused(&english, ps) == "to_language: `ps` is not possible: this model translates into en only");

    let bundle = Bundle::open(dir.path())?.with_translation_languages(&["ps"])?;
    let (_, _, special) = bundle.description().vocabulary()?;
    let pashto = Transcriber::load(bundle, &Device::Cpu)?;
    ensure!(special.translation_languages == ["ps"] && refused(&pashto, ps) == "accepted");
    let refused_english = "to_language: `en` is not possible: this model translates into ps only";
    ensure!(refused(&pashto, None) == refused_english, "{}", refused(&pashto, None));
    // The token of the task, as for English: it says nothing about the language.
    let told = |options: &DecodeOptions| pashto.special_tokens().prompt(Told::by(options, Some("de"), false));
    let transcript = DecodeOptions { task: Task::Transcribe, ..translation(None) };
    let to_english = translation(None);
    let english_prompt = english.special_tokens().prompt(Told::by(&to_english, Some("de"), false))?;
    ensure!(told(&translation(ps))? == english_prompt);
    ensure!(told(&transcript)? == english.special_tokens().prompt(Told::by(&transcript, Some("de"), false))?);

    let several = Bundle::open(dir.path())?.with_translation_languages(&["ps", "en"]);
    let Err(Error::Key { path, key, .. }) = several else { bail!("two languages of one token are accepted") };
    ensure!(path.ends_with("generation_config.json") && key == "translation_languages");
    set(dir.path(), "generation_config.json", "/translation_languages", json!(["ps", "en"]))?;
    ensure_refused(dir.path(), "generation_config.json", "translation_languages")?;
    set(dir.path(), "generation_config.json", "/translation_languages", json!([]))?;
    ensure!(refused(&load(dir.path())?, None).ends_with("has not learnt to translate"));
    // What was said before is not asked.
    let again = Bundle::open(dir.path())?.with_translation_languages(&["fa"])?;
    ensure!(again.description().vocabulary()?.2.translation_languages == ["fa"]);

    for (name, codes, is_possible) in [
        ("canary", &["ps", "de"][..], true),
        ("canary", &["fr"], false),
        ("parakeet", &["en"], false),
        ("whisper-en", &["en"], false),
    ] {
        let taught = Bundle::open(&fixture(name))?.with_translation_languages(codes);
        ensure!(taught.is_ok() == is_possible, "{name}: {codes:?}");
    }
    Ok(())
}
