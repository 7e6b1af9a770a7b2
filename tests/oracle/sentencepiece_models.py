"""Three small SentencePiece models, and what SentencePiece makes of texts with them.

    python tests/oracle/make.py sentencepiece_models          (seconds)

Makes tests/fixtures/sentencepiece/: unigram.model, bpe.model and char.model, learnt from the lines below, with expected.json beside them.

    <model>.<i>.ids        of the i-th of `texts`
    <model>.<i>.decoded    of these ids, unknown ones left out
    real.<file>            the same of the models in SPEECHD_DATA (tokenizers/sentencepiece), if they are there

The models differ in everything that a tokenizer.json has to carry over: byte fallback, pieces that the user defined, collapsed and
kept spaces, a prefix or none, a table of characters or none. The table is small: full-width letters, tabs, Arabic letters that Pashto
writes otherwise, and some of two letters.

Made with sentencepiece 0.2.3, protobuf 7.36.2.
"""

import io
import tempfile
from pathlib import Path

import sentencepiece as spm

from common import FIXTURES, shared, write_json

OUT = FIXTURES / "sentencepiece"

# Abraham Lincoln, 1863, and Pashto numbers.
LINES = """Four score and seven years ago our fathers brought forth on this continent a new nation
conceived in liberty and dedicated to the proposition that all men are created equal
Now we are engaged in a great civil war testing whether that nation or any nation so conceived and so dedicated can long endure
We are met on a great battle field of that war
We have come to dedicate a portion of that field as a final resting place for those who here gave their lives that that nation might live
It is altogether fitting and proper that we should do this
The world will little note nor long remember what we say here but it can never forget what they did here
that government of the people by the people for the people shall not perish from the earth
یو دوه درې څلور پنځه شپږ اووه اته نهه لس
یوولس دوولس دیارلس څوارلس پنځلس شپاړس اوولس اتلس نولس شل
شل یو ویشت دوه ویشت درې ویشت څلور ویشت پنځه ویشت دېرش څلوېښت پنځوس
یو سل دوه سوه درې سوه زر دوه زره""".split("\n")

TEXTS = [
    "", " ", "   ", "a", "people", " people of the earth", "the people", "  two  leading   spaces ", "double  spaces",
    "We are met on a great battle field of that war.", "that\tnation\nlong endure", "hello, WORLD 123", "یو دوه درې", "دوه ويشت كال",
    "څلوېښت زره او پنځوس", "ښه ورځ، څنګه یې؟", "ＡＢＣ ａｂｃ", "我们今天 🎵🎶 👩‍👩‍👧", "Straße naïve café", "e\u0301 a\u0308", "\u2581people \u2581 of\u2581",
    "<0x41> <0xE9>", "km 5km kmkm", "x\u200cy\u200dz\ufeff", "قَدَّمَ", "nation nation nation nation", "ÿ \x00 \x7f", "the\rpeople",
]  # fmt: skip

# What is replaced by what, in code points.
RULES = [(chr(0xFF21 + i), chr(0x41 + i)) for i in range(26)] + [(chr(0xFF41 + i), chr(0x61 + i)) for i in range(26)]
RULES += [("ي", "ی"), ("ك", "ک"), ("\t", " "), ("\n", " "), ("\r", " "), ("\u200c", ""), ("e\u0301", "é"), ("a\u0308", "ä")]

MODELS = {
    "unigram": dict(model_type="unigram", vocab_size=200, rules=True),
    "bpe": dict(
        model_type="bpe", vocab_size=480, rules=True, byte_fallback=True, remove_extra_whitespaces=False,
        user_defined_symbols=["km", "<sep>"],
    ),
    "char": dict(model_type="char", vocab_size=70, add_dummy_prefix=False, user_defined_symbols=["km"]),
}  # fmt: skip


def train(rules=False, **options):
    """Bytes of a model."""
    with tempfile.TemporaryDirectory() as folder:
        if rules:
            table = Path(folder) / "rules.tsv"
            code = lambda text: " ".join(f"{ord(c):X}" for c in text)  # noqa: E731
            table.write_text("".join(f"{code(old)}\t{code(new)}\n" for old, new in RULES), encoding="utf-8")
            options["normalization_rule_tsv"] = str(table)
        else:
            options["normalization_rule_name"] = "identity"
        model = io.BytesIO()
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(options.pop("lines", LINES)), model_writer=model, minloglevel=2, num_threads=1,
            hard_vocab_limit=False, **options,
        )  # fmt: skip
        return model.getvalue()


def cases(model):
    tokenizer = spm.SentencePieceProcessor(model_proto=model)
    rows = []
    for text in TEXTS:
        ids = tokenizer.encode(text)
        rows.append({"ids": ids, "decoded": tokenizer.decode([i for i in ids if i != tokenizer.unk_id()])})
    return rows


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    report = {"made_with": {"sentencepiece": spm.__version__}, "texts": TEXTS}
    for name, options in MODELS.items():
        model = train(**options)
        (OUT / f"{name}.model").write_bytes(model)
        report[name] = cases(model)
    folder = shared("SPEECHD_DATA", "tokenizers", "sentencepiece")
    report["real"] = {path.name: cases(path.read_bytes()) for path in sorted(folder.glob("*.model"))}
    write_json(OUT / "expected.json", report)


if __name__ == "__main__":
    main()
