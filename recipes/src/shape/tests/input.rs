//! What goes in, and what of it is refused; and the page that comes out.

use super::*;

#[test]
fn what_says_nothing_is_refused_and_named() {
    let runs = exact(0.8, [0.35, 0.2], 1.4);
    let refused = |runs: &[ShapeRun], budgets: &[Budget]| {
        let resampling = Resampling { n_samples: 10, ..Resampling::default() };
        match plan_shape(runs, budgets, &ShapeOptions { resampling, ..ShapeOptions::default() }) {
            Err(error) => error.to_string(),
            Ok(plan) => plan.failures.first().expect("refused").to_string(),
        }
    };
    let with = |change: &dyn Fn(usize, &mut ShapeRun)| {
        let mut runs = runs.clone();
        runs.iter_mut().enumerate().for_each(|(index, run)| change(index, run));
        runs
    };
    let few: Vec<ShapeRun> = runs.iter().filter(|run| run.decoder_layers != Some(4)).cloned().collect();
    let line: Vec<ShapeRun> = LAYERS
        .iter()
        .flat_map(|n| {
            runs.iter()
                .filter(|run| run.encoder_layers == Some(*n) && run.decoder_layers == Some(*n))
                .cloned()
        })
        .collect();
    let latency = Budget::Latency { secs: 0.1, n_tokens: 20.0 };
    for (runs, budget, parts) in [
        (few, Budget::Params(1e7), ["the decoder has 2", "3 sizes"]),
        (line, Budget::Params(1e7), ["grow together", "alone"]),
        (
            with(&|index, run| {
                if index == 4 {
                    run.loss = None;
                }
            }),
            Budget::Params(1e7),
            ["run 5", "loss"],
        ),
        (
            with(&|index, run| {
                if index == 2 {
                    run.loss = Some(f64::INFINITY);
                }
            }),
            Budget::Params(1e7),
            ["run 3", "inf"],
        ),
        (with(&|_, run| run.decoder_params = 0), Budget::Params(1e7), ["decoder_params", "decoder"]),
        (
            with(&|_, run| run.encoder_params = u64::MAX - run.decoder_params / 2),
            Budget::Params(1e7),
            ["encoder_params", "9007199254740992 at most"],
        ),
        (with(&|_, run| run.loss = Some(2.0)), Budget::Params(1e7), ["all losses are 2", "train longer"]),
        (runs.clone(), Budget::Params(1e6), ["1.00 M parameters", "a layer each"]),
        (runs.clone(), Budget::Params(f64::NAN), ["NaN", "positive"]),
        (runs.clone(), latency, ["have no times", "encoder_secs"]),
        (
            timed(runs.clone()),
            Budget::Latency { secs: 0.01, n_tokens: 20.0 },
            ["10.0 ms", "before the first layer"],
        ),
        (timed(runs.clone()), Budget::Latency { secs: 0.02, n_tokens: 20.0 }, ["20.0 ms", "a layer each"]),
    ] {
        let message = refused(&runs, &[budget]);
        assert!(parts.iter().all(|part| message.contains(part)), "{message}: {parts:?}");
    }
    let mut slow = timed(runs);
    slow.iter_mut().for_each(|run| run.token_secs = run.token_secs.map(|secs| 1.0 - secs));
    let message = refused(&slow, &[latency]);
    assert!(message.contains("token_secs") && message.contains("does not grow"), "{message}");
}

#[test]
fn tables_are_read_as_they_are_written_and_errors_name_lines() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    let runs = timed(exact(0.8, [0.35, 0.2], 1.4));
    let path = write("runs.jsonl", &runs_jsonl(&runs).expect("JSON"));
    assert_eq!(read_runs(&path).expect("runs"), runs);
    let csv = "loss, encoder_params,decoder_params,note\n2.5,1000,2000,good\n2.25,1500,2000,\n";
    let read = read_runs(&write("runs.csv", csv)).expect("runs");
    assert_eq!((read.len(), read[1].loss, read[1].encoder_params, read[1].seed), (2, Some(2.25), 1500, None));
    for (name, text, parts) in [
        ("a.csv", "loss,encoder_params\n2,1\n", ["a.csv:1", "decoder_params"]),
        ("b.csv", "loss,encoder_params,decoder_params\n2,1,1\nx,1,1\n", ["b.csv:3", "loss"]),
        (
            "c.jsonl",
            "{\"encoder_params\":1,\"decoder_params\":1,\"loss\":1}\n{\"loss\":1}\n",
            ["c.jsonl:2", "encoder_params"],
        ),
        ("d.jsonl", "\n{\"encoder_params\":-1,\"decoder_params\":1,\"loss\":1}\n", ["d.jsonl:2", "-1"]),
        ("e.jsonl", "nothing\n", ["e.jsonl:1", "expected"]),
        ("f.jsonl", "", ["f.jsonl", "no rows"]),
    ] {
        let message = read_runs(&write(name, text)).expect_err(name).to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}: {parts:?}");
    }
    // What is not finite is no number in JSON, and named when it is fitted.
    let diverged = vec![ShapeRun { loss: Some(f64::NAN), ..runs[0].clone() }];
    let path = write("diverged.jsonl", &runs_jsonl(&diverged).expect("JSON"));
    assert_eq!(read_runs(&path).expect("runs")[0].loss, None);
}

#[test]
fn the_page_holds_tables_and_plots_and_nothing_from_elsewhere() {
    let runs = timed(grid(0.8, [0.35, 0.2], 1.4, 0.01, &mut Deviates(3)));
    let budgets = [Budget::Params(2e7), Budget::Latency { secs: 0.1, n_tokens: 40.0 }];
    let page = shape_page("<mine>", "cross_entropy", &plan(&runs, &budgets)).expect("a page");
    assert_eq!(page.matches("<svg").count(), 3);
    for part in
        ["&lt;mine&gt;", "20.00 M parameters", "100.0 ms for 40 tokens", "4+2 layers", "Predicted and actual"]
    {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("src=") && !page.contains("href="));
}

#[test]
fn a_bundle_is_counted_without_embeddings() {
    let fixture = |name: &str| {
        models::Bundle::open(
            &std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name),
        )
        .expect("a bundle")
    };
    for name in ["whisper-80", "canary"] {
        let bundle = fixture(name);
        let (encoder, decoder) = count_params(&bundle);
        let size = |part: &dyn Fn(&str) -> bool| -> u64 {
            let tensors = bundle.weights().tensors().filter(|(name, ..)| part(name));
            tensors.map(|(_, shape, _)| shape.iter().product::<usize>() as u64).sum()
        };
        let left = size(&|name| {
            name.contains("embed_") || name.contains("running_") || name.contains("num_batches")
        }) + size(&|name| name.starts_with("proj_out"));
        assert!(encoder > 0 && decoder > 0 && left > 0);
        assert_eq!(encoder + decoder + left, bundle.weights().n_parameters() as u64, "{name}");
    }
    assert_eq!(count_params(&fixture("parakeet")).1, 0);
}
