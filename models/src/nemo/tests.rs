use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use audio::{FeatureSpec, WindowKind};
use serde_json::json;

use super::features::{FILTERS, WINDOW};
use super::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/nemo").join(name)
}

fn opened(name: &str) -> Archive {
    Archive::open(&fixture(name), &std::env::temp_dir()).expect("an archive")
}

/// Members of an archive, by name.
fn members(name: &str) -> Vec<(String, Vec<u8>)> {
    let archive = opened(name);
    let mut names = vec![CONFIG, WEIGHTS];
    names.extend(match name {
        "ctc.nemo" => &["2b6cff4d3a0b4f8c9e1d_tokenizer.model"][..],
        _ => &["spl_tokens71ab_tokenizer.model", "en71ab_tokenizer.model", "ps71ab_tokenizer.model"],
    });
    let read = |name: &&str| {
        let mut bytes = Vec::new();
        archive.member(name).expect("a member").read_to_end(&mut bytes).expect("its bytes");
        ((*name).to_owned(), bytes)
    };
    names.iter().map(read).collect()
}

/// What an import of these members says.
fn imported(members: &[(String, Vec<u8>)]) -> Result<(), String> {
    let folder = tempfile::tempdir().expect("a folder");
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        append(&mut tar, name, tar::EntryType::Regular, bytes);
    }
    let path = folder.path().join("x.nemo");
    std::fs::write(&path, tar.into_inner().expect("a tar")).expect("written");
    let out = folder.path().join("out");
    std::fs::create_dir(&out).expect("a folder");
    import_nemo(&path, &out, WeightDtype::F32).map_err(|error| error.to_string())
}

fn append(tar: &mut tar::Builder<Vec<u8>>, name: &str, kind: tar::EntryType, bytes: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.as_gnu_mut().expect("gnu").name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(bytes.len() as u64);
    header.set_cksum();
    tar.append(&header, bytes).expect("appended");
}

#[test]
fn what_no_model_of_ours_does_is_refused_by_key_and_value() {
    for (archive, before, after, message) in [
        (
            "ctc.nemo",
            "ctc_bpe_models.EncDecCTCModelBPE",
            "rnnt_bpe_models.EncDecRNNTBPEModel",
            "`target`: nemo.collections.asr.models.rnnt_bpe_models.EncDecRNNTBPEModel",
        ),
        (
            "ctc.nemo",
            "subsampling: dw_striding",
            "subsampling: vggnet",
            "`encoder.subsampling`: \"vggnet\" is not known; \"dw_striding\" is",
        ),
        (
            "ctc.nemo",
            "subsampling_factor: 8",
            "subsampling_factor: 7",
            "`encoder_config.subsampling_factor`: 7",
        ),
        (
            "ctc.nemo",
            "self_attention_model: rel_pos",
            "self_attention_model: rel_pos_local_attn",
            "`encoder.att_context_size`: [-1,-1] is not known; two numbers above 0",
        ),
        (
            "ctc.nemo",
            "self_attention_model: rel_pos",
            "self_attention_model: abs_pos",
            "`encoder.self_attention_model`: \"abs_pos\" is not known; \"rel_pos\" or \"rel_pos_local_attn\" is",
        ),
        (
            "ctc.nemo",
            "self_attention_model: rel_pos",
            "self_attention_model: rel_pos_local_attn\n  global_tokens: 1",
            "`encoder.global_tokens`: 1 is not known; 0 is",
        ),
        ("ctc.nemo", "conv_norm_type: batch_norm", "conv_norm_type: layer_norm", "encoder.conv_norm_type"),
        ("ctc.nemo", "  xscaling: true", "  xscaling: 7", "`encoder.xscaling`: 7"),
        ("ctc.nemo", "  n_layers: 2", "  n_layers: 1", "`encoder.layers.1."),
        ("ctc.nemo", "  n_layers: 2", "  n_layers: 3", "layers.2."),
        (
            "ctc.nemo",
            "  n_layers: 2",
            "  n_layers: ${x.y}",
            "`encoder.n_layers`: \"${x.y}\" is no whole number",
        ),
        (
            "ctc.nemo",
            "  causal_downsampling: false",
            "  streaming: true",
            "`encoder.streaming`: is not known, and is true",
        ),
        (
            "ctc.nemo",
            "normalize: per_feature",
            "normalize: all_features",
            "`preprocessor.normalize`: \"all_features\"",
        ),
        ("ctc.nemo", "window: hann", "window: hamming", "preprocessor.window"),
        ("ctc.nemo", "type: bpe", "type: wpe", "`tokenizer.type`: wpe"),
        ("ctc.nemo", "nemo:2b6c", "nemo:../2b6c", "is not in the archive"),
        ("ctc.nemo", "features: 80", "features: 128", "encoder.feat_in"),
        (
            "canary.nemo",
            "hidden_act: relu",
            "hidden_act: gelu",
            "`transf_decoder.config_dict.hidden_act`: \"gelu\"",
        ),
        ("canary.nemo", "pre_ln: true", "pre_ln: false", "transf_decoder.config_dict.pre_ln"),
        (
            "canary.nemo",
            "prompt_format: canary2",
            "prompt_format: canary",
            "`prompt_format`: \"canary\" is not known; \"canary2\" is",
        ),
        (
            "canary.nemo",
            "    inner_size: 40",
            "    hidden_sizes: 1\n    inner_size: 40",
            "config_dict.hidden_sizes",
        ),
        ("canary.nemo", "    inner_size: 40", "    inner_size: 41", "mlp.fc1"),
        (
            "canary.nemo",
            "    hidden_size: 16",
            "    hidden_size: 32",
            "`transf_decoder.config_dict.hidden_size`: 32 is not encoder.d_model = 16",
        ),
        ("canary.nemo", "  num_layers: 0", "  num_layers: 4", "transf_encoder.num_layers"),
        // What is off where it is null, and on where it is absent.
        (
            "ctc.nemo",
            "normalize: per_feature",
            "normalize: null",
            "`preprocessor.normalize`: null is not known; \"per_feature\" is",
        ),
        ("ctc.nemo", "  log: true", "  log: null", "`preprocessor.log`: null"),
        ("ctc.nemo", "  n_fft: 512", "  preemph: null", "`preprocessor.preemph`: null"),
        ("ctc.nemo", "  n_fft: 512", "  mel_norm: null", "`preprocessor.mel_norm`: null"),
        ("ctc.nemo", "  xscaling: true", "  xscaling: null", "`encoder.xscaling`: null"),
        (
            "ctc.nemo",
            "modules.AudioToMelSpectrogramPreprocessor",
            "modules.AudioToMFCCPreprocessor",
            "`preprocessor._target_`: \"nemo.collections.asr.modules.AudioToMFCCPreprocessor\" is not known; AudioToMel",
        ),
        (
            "ctc.nemo",
            "modules.ConformerEncoder",
            "modules.SqueezeformerEncoder",
            "`encoder._target_`: \"nemo.collections.asr.modules.SqueezeformerEncoder\"",
        ),
        ("ctc.nemo", "modules.ConvASRDecoder", "modules.LSTMDecoder", "`decoder._target_`"),
        ("ctc.nemo", "  num_classes:", "  add_blank: false\n  num_classes:", "`decoder.add_blank`: false"),
        (
            "ctc.nemo",
            "  num_classes:",
            "  n_hidden: 8\n  num_classes:",
            "`decoder.n_hidden`: is not known, and is 8",
        ),
        (
            "canary.nemo",
            "transformer.get_nemo_transformer",
            "transformer.get_huggingface_transformer",
            "`transf_decoder._target_`",
        ),
        ("canary.nemo", "  model_name: null", "  model_name: x", "`transf_decoder.model_name`: is not known"),
        (
            "canary.nemo",
            "token_classifier.TokenClassifier",
            "x.Y",
            "`head._target_`: \"nemo.collections.asr.parts.submodules.x.Y\"",
        ),
        ("canary.nemo", "  log_softmax: true", "  scale: 2", "`head.scale`: is not known, and is 2"),
    ] {
        let mut members = members(archive);
        let yaml = String::from_utf8(members[0].1.clone()).expect("text");
        assert!(yaml.contains(before), "{before} in {yaml}");
        members[0].1 = yaml.replace(before, after).into_bytes();
        let found = imported(&members).expect_err(after);
        assert!(found.contains(message), "{after}: {found}");
    }
}

#[test]
fn null_is_the_default_where_nemo_reads_it_so() {
    for (before, after) in [
        ("  n_fft: 512", "  n_fft: null\n  highfreq: null"),
        ("  reduction: null", "  reduction: null"),
        ("  conv_context_size: null", "  conv_context_size: null"),
    ] {
        let mut members = members("ctc.nemo");
        let yaml = String::from_utf8(members[0].1.clone()).expect("text");
        assert!(yaml.contains(before), "{before} in {yaml}");
        members[0].1 = yaml.replace(before, after).into_bytes();
        assert_eq!(imported(&members), Ok(()), "{after}");
    }
}

#[test]
fn a_context_of_attention_is_read_as_nemo_reads_it() {
    let archive = opened("ctc.nemo");
    let path = archive.path(CONFIG);
    let yaml = archive.read(CONFIG, MAX_CONFIG_BYTES).expect("a configuration");
    let written: Value = serde_saphyr::from_str(&String::from_utf8(yaml).expect("text")).expect("YAML");
    let read = |model: &str, size: Value| {
        let mut keys = written.clone();
        keys["encoder"]["self_attention_model"] = model.into();
        keys["encoder"]["att_context_size"] = size;
        config::encoder(&mut Settings::new(&path, &keys)).map_err(|error| error.to_string())
    };
    for (model, size, expected) in [
        ("rel_pos", json!(null), None),
        ("rel_pos", json!([-1, -1]), None),
        ("rel_pos", json!([[-1, -1]]), None),
        ("rel_pos", json!([128, 64]), Some([128, 64])),
        ("rel_pos", json!([[70, 13]]), Some([70, 13])),
        ("rel_pos", json!([0, 0]), Some([0, 0])),
        // Whatever its length: the archive says that no recording has more positions than 5000.
        ("rel_pos", json!([-1, 0]), Some([5000, 0])),
        ("rel_pos_local_attn", json!([128, 128]), Some([128, 128])),
    ] {
        let found = read(model, size.clone()).map(|config| config.attention_context);
        assert_eq!(found, Ok(expected), "{model}, {size}");
    }
    for (model, size, message) in [
        ("rel_pos", json!([-2, 0]), "[-2,0] is not known; numbers from 0 on"),
        ("rel_pos", json!([[1, 2], [3, 4]]), "[[1,2],[3,4]] is not known; two numbers are"),
        ("rel_pos", json!([1, 2, 3]), "[1,2,3] is not known"),
        ("rel_pos", json!(128), "128 is not known"),
        ("rel_pos", json!([0.5, 1]), "[0.5,1] is not known"),
        ("rel_pos_local_attn", json!(null), "[-1,-1] is not known; two numbers above 0 that are the same"),
        ("rel_pos_local_attn", json!([128, 64]), "[128,64] is not known; two numbers above 0"),
        ("rel_pos_local_attn", json!([0, 0]), "[0,0] is not known; two numbers above 0"),
    ] {
        let found = read(model, size.clone()).map(|config| config.attention_context).expect_err("refused");
        let named = format!("`encoder.att_context_size`: {message}");
        assert!(found.contains(&named), "{model}, {size}: {found}");
    }
    // Whoever forges a large one is told by our own name.
    let forged = read("rel_pos", json!([1_000_000, 0])).expect("a number").check(&path);
    assert!(forged.is_err_and(|error| error.to_string().contains("attention_context")));
}

#[test]
fn features_are_those_that_an_archive_has_tables_of() {
    for name in ["ctc.nemo", "canary.nemo"] {
        let archive = opened(name);
        let spec = FeatureSpec { n_fft: 512, window: WindowKind::HannSymmetric, ..FeatureSpec::whisper(80) };
        for (spec, expected) in [
            (spec.clone(), None),
            (FeatureSpec { max_hz: 7_800.0, ..spec.clone() }, Some(FILTERS)),
            (FeatureSpec { n_mels: 128, ..spec.clone() }, Some(FILTERS)),
            (FeatureSpec { window: WindowKind::HannPeriodic, ..spec.clone() }, Some(WINDOW)),
            (FeatureSpec { window_samples: 320, ..spec }, Some(WINDOW)),
        ] {
            let mut checkpoint = Checkpoint::open(&archive, WEIGHTS).expect("a checkpoint");
            let found = features::check(&mut checkpoint, &spec).map_err(|error| error.to_string());
            match expected {
                None => assert_eq!(found, Ok(()), "{name}"),
                Some(table) => assert!(found.as_ref().is_err_and(|found| found.contains(table)), "{found:?}"),
            }
        }
    }
}

#[test]
fn a_member_ends_where_it_ends() {
    let archive = opened("ctc.nemo");
    let mut member = archive.member(CONFIG).expect("a member");
    for at in [member.n_bytes(), u64::MAX] {
        member.seek(SeekFrom::Start(at)).expect("anywhere");
        assert_eq!(member.read(&mut [0; 9]).expect("nothing"), 0);
    }
}

#[test]
fn all_tensors_may_be_read_three_times() {
    // A tied embedding that is most of a model is: under its name, beside the head and to look at.
    let archive = opened("canary.nemo");
    let mut checkpoint = Checkpoint::open(&archive, WEIGHTS).expect("a checkpoint");
    let names = checkpoint.names();
    let mut read_all = || {
        let mut floats = names.iter().filter(|name| !name.ends_with("num_batches_tracked"));
        floats.try_for_each(|name| checkpoint.read(name).map(|_| ()))
    };
    for n in 0..3 {
        read_all().unwrap_or_else(|error| panic!("the {n}th time: {error}"));
    }
    let found = (0..9).try_for_each(|_| read_all()).map_err(|error| error.to_string());
    assert!(
        found.as_ref().is_err_and(|found| found.contains("names the numbers of other tensors again")),
        "{found:?}"
    );
}

#[test]
fn damaged_numbers_are_refused_by_their_sum() {
    let mut members = members("ctc.nemo");
    let numbers = &mut members[1].1;
    let middle = numbers.len() / 2;
    numbers[middle] ^= 1;
    let found = imported(&members).expect_err("damaged");
    assert!(found.contains("/data/") && found.contains("checksum"), "{found}");
}

#[test]
fn errors_name_the_archive_and_not_what_was_made_of_it() {
    let mut members = members("ctc.nemo");
    let yaml = String::from_utf8(members[0].1.clone()).expect("text");
    members[0].1 = yaml.replace("  n_layers: 2", "  n_layers: 3").into_bytes();
    let found = imported(&members).expect_err("a block is missing");
    let what = "x.nemo: what was made of it does not load: model.safetensors: ";
    assert!(found.contains(what) && !found.contains("/out/"), "{found}");
}

#[test]
fn compressed_archives_are_uncompressed_beside_what_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let nowhere = folder.path().join("nowhere");
    let found = Archive::open(&fixture("canary.nemo"), &nowhere).map(|_| ()).expect_err("no such folder");
    let found = found.to_string();
    let what = format!("cannot be uncompressed into {}: ", nowhere.display());
    assert!(found.contains(&what) && found.contains("gzip -dc"), "{found}");
    assert!(Archive::open(&fixture("ctc.nemo"), &nowhere).is_ok(), "is not compressed");
}

#[test]
fn archives_that_lack_something_say_what() {
    let good = members("ctc.nemo");
    assert_eq!(imported(&good), Ok(()));
    for i in 0..good.len() {
        let mut members = good.clone();
        let (name, _) = members.remove(i);
        let found = imported(&members).expect_err("refused");
        assert!(found.contains(&name) && found.contains("is not in the archive"), "{found}");
    }
    let mut members = good.clone();
    members[1].1 = b"not a zip".to_vec();
    assert!(imported(&members).expect_err("refused").contains("is no PyTorch checkpoint"));
    members[0].1 = b"a: [".to_vec();
    assert!(imported(&members).expect_err("refused").contains("model_config.yaml: is no YAML"));
    let found = imported(&[good.clone(), good].concat()).expect_err("refused");
    assert!(found.contains("`model_config.yaml`: is there twice"), "{found}");
}

#[test]
fn names_that_lead_elsewhere_are_refused_and_nothing_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, out) = (folder.path().join("x.nemo"), folder.path().join("out"));
    std::fs::create_dir(&out).expect("a folder");
    use tar::EntryType as Kind;
    for (name, kind, message) in [
        ("../x", Kind::Regular, "is no plain name"),
        ("/etc/x", Kind::Regular, "is no plain name"),
        ("a/b", Kind::Regular, "is no plain name"),
        ("a/", Kind::Directory, "is no plain name"),
        ("model_config.yaml", Kind::Symlink, "is a link or a device"),
        ("model_config.yaml", Kind::Link, "is a link or a device"),
        ("model_config.yaml", Kind::Char, "is a link or a device"),
        ("model_config.yaml", Kind::Fifo, "is a link or a device"),
    ] {
        let mut tar = tar::Builder::new(Vec::new());
        append(&mut tar, name, kind, b"");
        std::fs::write(&path, tar.into_inner().expect("a tar")).expect("written");
        let found = import_nemo(&path, &out, WeightDtype::F32).map_err(|error| error.to_string());
        assert!(found.as_ref().is_err_and(|found| found.contains(message)), "{name} {kind:?}: {found:?}");
    }
    let mut tar = tar::Builder::new(Vec::new());
    for i in 0..1001 {
        append(&mut tar, &i.to_string(), Kind::Regular, b"");
    }
    std::fs::write(&path, tar.into_inner().expect("a tar")).expect("written");
    let found = import_nemo(&path, &out, WeightDtype::F32).map_err(|error| error.to_string());
    assert!(found.is_err_and(|found| found.contains("more than 1000 members")));
    let whole = std::fs::read(fixture("ctc.nemo")).expect("the fixture");
    std::fs::write(&path, &whole[..100_000]).expect("written");
    let found = import_nemo(&path, &out, WeightDtype::F32).map_err(|error| error.to_string());
    assert!(found.is_err_and(|found| found.contains("is cut off")));
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for _ in 0..65 {
        std::io::Write::write_all(&mut bomb, &vec![0; 1 << 20]).expect("compressed");
    }
    std::fs::write(&path, bomb.finish().expect("compressed")).expect("written");
    let found = import_nemo(&path, &out, WeightDtype::F32).map_err(|error| error.to_string());
    assert!(found.is_err_and(|found| found.contains("when it is uncompressed")));
    assert_eq!(std::fs::read_dir(&out).expect("the folder").count(), 0);
}

#[test]
fn damaged_members_are_refused_or_read() {
    for archive in ["ctc.nemo", "canary.nemo"] {
        let good = members(archive);
        // Numerical Recipes' generator: the same everywhere.
        let mut state = 29u64;
        let mut below = |n: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % n.max(1)
        };
        let (mut n_read, mut n_refused) = (0, 0);
        for _ in 0..300 {
            let mut members = good.clone();
            let (_, bytes) = &mut members[below(good.len())];
            for _ in 0..1 + below(3) {
                // A checkpoint's pickle comes first, its directory last.
                let n = bytes.len();
                let at = if below(2) == 0 { below(n.min(6_000)) } else { n - 1 - below(n.min(6_000)) };
                match below(4) {
                    0 => bytes[at] ^= 1 << below(8),
                    1 => bytes[at] = below(256) as u8,
                    2 => bytes.insert(at, b"\xff\0R()tu:-{"[below(10)]),
                    _ => drop(bytes.remove(at)),
                }
            }
            match imported(&members) {
                Ok(()) => n_read += 1,
                Err(message) => {
                    assert!(message.contains(".nemo"), "{message}");
                    n_refused += 1;
                }
            }
        }
        assert!(n_read > 10 && n_refused > 30, "{archive}: {n_read} read, {n_refused} refused");
    }
}
