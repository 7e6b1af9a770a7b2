//! Texts and their translations, in tables and side by side.

use proptest::prelude::*;

use super::*;

/// Id, text, translation, and both languages.
fn pairs(prepared: &Prepared, split: Split) -> Vec<String> {
    let cuts = prepared.splits.get(&split).into_iter().flatten();
    cuts.map(|cut| {
        assert!(!cut.has_audio() && cut.duration_secs == 0.0, "{cut:?}");
        let language = |language: &Option<Arc<str>>| language.as_deref().unwrap_or("-").to_owned();
        let (from, into) = (language(&cut.language), language(&cut.target_language));
        format!("{} {from} {} {into} {}", cut.id, cut.text, cut.target_text.as_deref().unwrap_or("-"))
    })
    .collect()
}

#[test]
fn a_table_is_named_after_its_languages() {
    let folder = Folder::new();
    folder
        .file(
            "en-ps.tsv",
            b"\xef\xbb\xbfone \"and\t\xdb\x8c\xd9\x88\nbad\t\xff\n \tx\ny\t\nz\na\tb\tc\nlast\tw\r\n"
                .as_slice(),
        )
        .file("test.en-ps.tsv", "two\tدوه\n")
        .file("README.md", "x");
    assert_eq!(Layout::detect(&folder.path()).expect("detected"), Layout::ParallelText);
    let prepared = folder.prepare(&as_is());
    assert_eq!(pairs(&prepared, Split::Train), ["en-ps-1 en one \"and ps یو", "en-ps-7 en last ps w"]);
    assert_eq!(pairs(&prepared, Split::Test), ["test.en-ps-1 en two ps دوه"]);
    assert_eq!(
        rejections(&prepared),
        [
            "2 not a row: column 2: no UTF-8",
            "3 `text` is empty",
            "4 `translation` is empty",
            "5 not a row: 1 columns; expected a text and its translation",
            "6 not a row: 3 columns; expected a text and its translation",
        ]
    );
    // By its own name, too.
    let table = prepare(&folder.path().join("test.en-ps.tsv"), &as_is(), &|_, _| {}).expect("a table");
    assert_eq!(pairs(&table, Split::Test).len(), 1);
}

#[test]
fn files_side_by_side_are_read_line_by_line() {
    let folder = Folder::new();
    folder
        .file("train.en", b"one\ntwo\r\n\nfour\xff\n".as_slice())
        .file("train.ps", "یو\nدوه\nدرې\nڅلور")
        .file("dev.en", "five\n")
        .file("dev.ps", "پنځه\n");
    assert_eq!(Layout::detect(&folder.path()).expect("detected"), Layout::ParallelText);
    let options = Options { language: Some("en".to_owned()), ..as_is() };
    let prepared = folder.prepare(&options);
    assert_eq!(pairs(&prepared, Split::Train), ["train-1 en one ps یو", "train-2 en two ps دوه"]);
    assert_eq!(pairs(&prepared, Split::Dev), ["dev-1 en five ps پنځه"]);
    assert_eq!(rejections(&prepared), ["3 `text` is empty", "4 not a row: train.en: no UTF-8"]);
    assert!(prepared.notes.is_empty(), "{:?}", prepared.notes);
    let turned = folder.prepare(&Options { language: Some("ps".to_owned()), ..as_is() });
    assert_eq!(pairs(&turned, Split::Dev), ["dev-1 ps پنځه en five"]);
    let unsaid = folder.prepare(&as_is());
    assert!(unsaid.notes[0].contains("from en into ps; --language ps turns it round"), "{:?}", unsaid.notes);

    // A name that says both decides; three letters need one.
    let named = Folder::new();
    named.file("x.pus-eng.eng", "one\n").file("x.pus-eng.pus", "یو\n").file("a.cfg", "").file("a.dat", "");
    let prepared = named.prepare(&options);
    assert_eq!(pairs(&prepared, Split::Train), ["x.pus-eng-1 pus یو eng one"]);

    folder.file("dev.ps", "پنځه\nشپږ\n");
    let message = folder.refuse(&options);
    assert!(message.contains("dev.en: has 1 lines") && message.contains("dev.ps has 2"), "{message}");
    folder.file("dev.ps", "پنځه\n").file("dev.ur", "x\n");
    let message = folder.refuse(&options);
    assert!(message.contains("dev.en, dev.ps, dev.ur are in 3 languages"), "{message}");
}

#[test]
fn texts_that_are_the_same_stay_in_one_split() {
    let folder = Folder::new();
    let rows: Vec<_> = (0..200).map(|index| format!("text {}\tx{index}\n", index % 100)).collect();
    folder.file("en-ps.tsv", rows.concat());
    let prepared = folder.prepare(&Options { dev_fraction: 0.1, test_fraction: 0.2, ..Options::default() });
    assert_eq!(Split::ALL.map(|split| prepared.splits[&split].len()), [140, 20, 40]);
    let of = |split| prepared.splits[&split].iter().map(|cut| cut.text.clone()).collect::<BTreeSet<_>>();
    let [train, dev, test] = Split::ALL.map(of);
    assert!(train.is_disjoint(&dev) && train.is_disjoint(&test) && dev.is_disjoint(&test));
}

#[test]
fn pairs_are_written_without_recordings_and_read_again() {
    let folder = Folder::new();
    folder.file("corpus/en-ps.tsv", "one\tیو\n");
    let prepared = prepare(&folder.path().join("corpus"), &as_is(), &|_, _| {}).expect("a corpus");
    let out = folder.path().join("data");
    write(&prepared.splits, &prepared.rejected, &out, false).expect("written");
    let texts = Needs { audio: false, ..Needs::default() };
    let manifest = read(&out.join("train.jsonl"), texts).expect("read");
    assert_eq!(manifest.cuts, prepared.splits[&Split::Train]);
    let message = read(&out.join("train.jsonl"), Needs::default()).expect_err("no recordings").to_string();
    assert!(message.contains("none of its 1 rows") && message.contains("no `audio_filepath`"), "{message}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The stable form of `recipes/fuzz`'s `corpus`: texts with bytes changed.
    #[test]
    fn damaged_texts_are_cuts_or_reasons(
        is_table in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let (name, text) = if is_table { ("en-ps.tsv", "one\tیو\ntwo\tدوه\n\tx\n") } else { ("dev.ps", "یو\nدوه\n\n") };
        let mut bytes = text.as_bytes().to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let folder = Folder::new();
        folder.file("dev.en", "one\ntwo\nthree\n").file(name, &bytes);
        let options = Options { layout: Some(Layout::ParallelText), ..as_is() };
        let Ok(prepared) = prepare(&folder.path(), &options, &|_, _| {}) else { return Ok(()) };
        for cut in prepared.splits.values().flatten() {
            prop_assert!(!cut.has_audio() && !cut.text.trim().is_empty());
            prop_assert!(!cut.output_text().trim().is_empty());
        }
    }
}
