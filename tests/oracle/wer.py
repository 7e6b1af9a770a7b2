"""Word and character error counts by jiwer, no normalisation beyond splitting at white space.

    python tests/oracle/make.py wer

Makes tests/fixtures/wer.json. Counts are [substitutions, deletions, insertions, units of the reference]. Where several alignments
are equally good the split is that of rapidfuzz, which jiwer calls, so `random` has few different words and many ties. Made with
jiwer 4.0.0.
"""

import random
from importlib.metadata import version

import jiwer

from common import FIXTURES, write_json

CASES = [
    ("equal", "one two three", "one two three"),
    ("one substitution", "one two three", "one too three"),
    ("one deletion", "one two three four", "one two four"),
    ("one insertion", "one two", "one two two"),
    ("all wrong", "one two", "three four"),
    ("empty hypothesis", "one two three", ""),
    ("longer than the reference", "one", "one one one one"),
    ("mixed", "the cat sat on the mat today", "a cat sat the mat to day"),
    ("pashto", "دغه علايم له څومره مودې راهيسې ادامه لري", "دغه علايم څومره مودې راهیسې ادامه لري نن"),
    ("vocalised arabic", "مَرْحَبًا بِكُمْ جَمِيعًا", "مرحبا بكم جميعا"),
    ("decomposed accents", "cafe\u0301 ole\u0301", "café olé"),
    ("chinese, one word", "我们今天去北京", "我们明天去北京吧"),
    ("japanese and emoji", "今日は 😀 です", "今日 😀👍 でした"),
    ("case and punctuation count", "Hello, world", "hello world"),
    ("repeated spaces", "one  two   three", " one two three "),
    ("swapped", "one two three four", "two one three four"),
    ("empty reference", "", "one two"),
    ("both empty", " ", ""),
]


def counts(output):
    units = output.hits + output.substitutions + output.deletions
    return [output.substitutions, output.deletions, output.insertions, units]


def compare(reference, hypothesis):
    return (
        jiwer.process_words([reference], [hypothesis]),
        jiwer.process_characters([reference], [hypothesis]),
    )


def main():
    cases, references, hypotheses = [], [], []
    for name, reference, hypothesis in CASES:
        words, characters = compare(reference, hypothesis)
        references.append(reference)
        hypotheses.append(hypothesis)
        case = dict(name=name, reference=reference, hypothesis=hypothesis, words=counts(words), characters=counts(characters))
        if words.references != [[]]:  # of nothing jiwer gives the number of insertions, which is no rate
            case.update(wer=round(words.wer, 6), cer=round(characters.cer, 6))
        cases.append(case)
    total = jiwer.process_words(references, hypotheses)

    generator, ties = random.Random(20250625), []
    for n_words in (2, 2, 3, 3, 4, 6) * 10:
        reference, hypothesis = (
            " ".join(generator.choices("abcdef"[:n_words], k=generator.randint(0, 14))) for _ in range(2)
        )
        words, characters = compare(reference, hypothesis)
        ties.append([reference, hypothesis, counts(words), counts(characters)])

    write_json(
        FIXTURES / "wer.json",
        dict(
            made_by="tests/oracle/wer.py", jiwer=version("jiwer"), rapidfuzz=version("rapidfuzz"),
            note="words: split at white space; characters: jiwer strips both ends and counts the spaces between; corpus: all cases together",
            cases=cases,
            corpus=dict(wer=round(total.wer, 6), words=counts(total), cer=round(jiwer.cer(references, hypotheses), 6)),
            random=ties,
        ),
    )  # fmt: skip


if __name__ == "__main__":
    main()
