"""Token ids, word splits and the non-speech set of the large-v3 tokenizer.

    python tests/oracle/make.py tokenizer

Makes tests/fixtures/tokenizer.json. Ids by `tokenizers` from tokenizer.json (data: tokenizers/whisper-large-v3-hf, and the reference
checkpoint's own, which must agree; `tiny` is whisper-80's, so run whisper_tiny first); word splits and the non-speech set by openai/whisper's Tokenizer. `plain_ids` is the same text with
special-token strings read as ordinary text (tiktoken's encode with disallowed_special=()); it differs from `ids` only where the
text holds such a string. Made with tokenizers 0.23.3, openai-whisper 20250625.
"""

from tokenizers import Tokenizer
from whisper.tokenizer import get_tokenizer

from common import FIXTURES, shared, versions, write_json

TEXTS = [
    "",
    " ",
    "hello",
    " hello",
    "  two leading spaces",
    " And so my fellow Americans, ask not what your country can do for you.",
    " it's we'll I'd DON'T",
    " 3.14159 and 1,000,000 in 2024",
    " line one\nline two\ttab  ",
    " دغه علايم له څومره مودې راهيسې ادامه لري؟",
    " په خاصه بیا ستاسو عمر ته په کتو سره",
    "ښه ورځ، څنګه یې؟",
    " 我们今天讨论语音识别。",
    "今日はいい天気ですね。",
    " ภาษาไทยไม่มีช่องว่าง",
    " 다람쥐 헌 쳇바퀴에 타고파",
    " elle est l'ébritoire",
    " Straße naïve café résumé",
    " 🎵🎶 emoji 👩‍👩‍👧 family",
    "e\u0301 combining",
    "♪♪ (laughs) [MUSIC]",
    "<|startoftranscript|><|en|><|transcribe|><|notimestamps|>",
    "<|0.00|> hello<|1.50|><|endoftext|>",
    " a < b | c > d <| not special |>",
]

SPLITS = [
    ("en", " And so, my fellow Americans: it's \"done\" (now)."),
    ("en", " don't-stop 3.5 ... ok?!"),
    ("ps", " دغه علايم له څومره مودې، راهيسې ادامه لري؟"),
    ("fr", " elle est l'ébritoire"),
    ("de", " 🎵 Straße, «naïve» café 👩‍👩‍👧"),
    ("zh", "我们今天讨论语音识别。"),
    ("ja", "今日はいい天気ですね。"),
    ("th", " ภาษาไทยไม่มีช่องว่าง"),
    ("ko", " 다람쥐 헌 쳇바퀴에 타고파"),
    ("en", "我们 mixed 今天 text"),
    ("zh", "我们 mixed 今天 text"),
]


def main():
    large = Tokenizer.from_file(str(shared("SPEECHD_DATA", "tokenizers", "whisper-large-v3-hf", "tokenizer.json")))
    micro = Tokenizer.from_file(str(shared("SPEECHD_MODELS", "micro-whisper-digits", "tokenizer.json")))
    theirs = get_tokenizer(True, num_languages=100, language="en", task="transcribe")

    cases = []
    for text in TEXTS:
        ids = large.encode(text, add_special_tokens=False).ids
        assert ids == micro.encode(text, add_special_tokens=False).ids, text
        assert ids == theirs.encode(text, allowed_special="all"), text
        plain = theirs.encode(text, disallowed_special=())
        cases.append(dict(text=text, ids=ids, plain_ids=plain, decoded=theirs.decode(ids),
                          decoded_without_special=large.decode(ids, skip_special_tokens=True)))  # fmt: skip

    splits = []
    for language, text in SPLITS:
        t = get_tokenizer(True, num_languages=100, language=language, task="transcribe")
        ids = t.encode(text) + [t.eot]
        words, tokens = t.split_to_word_tokens(ids)
        splits.append(dict(language=language, text=text, ids=ids, words=words, word_tokens=tokens))
    # Bytes that never complete a character, from openai/whisper's own test.
    ids = [8404, 871, 287, 6, 246, 526, 3210, 20378]
    words, tokens = theirs.split_tokens_on_unicode(ids)
    unicode_split = dict(ids=ids, words=words, word_tokens=tokens)

    tiny = Tokenizer.from_file(str(FIXTURES / "whisper-80" / "tokenizer.json"))
    tiny_cases = []
    for text in TEXTS:
        ids = tiny.encode(text, add_special_tokens=False).ids
        assert tiny.decode(ids, skip_special_tokens=False) == text
        tiny_cases.append(dict(text=text, ids=ids))

    english = get_tokenizer(False)
    specials = {
        n: theirs.special_tokens[f"<|{n}|>"]
        for n in ("endoftext", "startoftranscript", "en", "ps", "fa", "yue", "translate", "transcribe", "startoflm",
                  "startofprev", "nospeech", "notimestamps", "0.00", "30.00")
    }  # fmt: skip
    write_json(
        FIXTURES / "tokenizer.json",
        dict(
            made_by="tests/oracle/tokenizer.py",
            versions=versions(),
            specials=specials,
            specials_english_only={
                n: english.special_tokens[f"<|{n}|>"]
                for n in ("endoftext", "startoftranscript", "nospeech", "notimestamps", "0.00")
            },
            cases=cases,
            tiny=tiny_cases,
            splits=splits,
            split_on_unicode=unicode_split,
            split_rules="zh ja th lo my yue: a word ends wherever the tokens decode to whole characters; others: those pieces joined unless a piece "
            "starts with a space, is a substring of ASCII punctuation once stripped (the empty string is), or is a special token",
            non_speech_tokens=list(theirs.non_speech_tokens),
            non_speech_tokens_english_only=list(english.non_speech_tokens),
            suppressed_by_default=sorted(
                [*theirs.non_speech_tokens, theirs.transcribe, theirs.translate, theirs.sot, theirs.sot_prev, theirs.sot_lm,
                 theirs.no_speech]
            ),
        ),
    )  # fmt: skip


if __name__ == "__main__":
    main()
