"""Word and character error counts by jiwer, no normalisation beyond splitting at white space.

    python tests/oracle/make.py wer

Makes tests/fixtures/wer.json. Counts are of one best alignment: where several exist only errors = substitutions + deletions +
insertions is defined, and the cases are chosen so that the split is unique, or `unique` is false. Made with jiwer 4.0.0.
"""

from importlib.metadata import version
from itertools import product

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
    ("case and punctuation count", "Hello, world", "hello world"),
    ("repeated spaces", "one  two   three", " one two three "),
    ("swapped", "one two three four", "two one three four"),
]


def splits(reference, hypothesis):
    """All (substitutions, deletions, insertions) that some minimal alignment has."""
    best = {(0, 0): (0, {(0, 0, 0)})}
    for i, j in product(range(len(reference) + 1), range(len(hypothesis) + 1)):
        if (i, j) == (0, 0):
            continue
        options = []
        if i and j:
            s = int(reference[i - 1] != hypothesis[j - 1])
            options.append((best[i - 1, j - 1], (s, 0, 0)))
        if i:
            options.append((best[i - 1, j], (0, 1, 0)))
        if j:
            options.append((best[i, j - 1], (0, 0, 1)))
        cost = min(b[0] + sum(step) for b, step in options)
        ways = {
            tuple(x + y for x, y in zip(way, step)) for b, step in options if b[0] + sum(step) == cost for way in b[1]
        }
        best[i, j] = (cost, ways)
    return best[len(reference), len(hypothesis)]


def main():
    cases, references, hypotheses = [], [], []
    for name, reference, hypothesis in CASES:
        words = jiwer.process_words([reference], [hypothesis])
        characters = jiwer.process_characters([reference], [hypothesis])
        errors, ways = splits(reference.split(), hypothesis.split())
        assert errors == words.substitutions + words.deletions + words.insertions
        references.append(reference)
        hypotheses.append(hypothesis)
        cases.append(
            dict(name=name, reference=reference, hypothesis=hypothesis, words=len(reference.split()),
                 substitutions=words.substitutions, deletions=words.deletions, insertions=words.insertions,
                 hits=words.hits, errors=errors, unique=len(ways) == 1, wer=round(words.wer, 6),
                 cer=round(characters.cer, 6))
        )  # fmt: skip
    total = jiwer.process_words(references, hypotheses)
    write_json(
        FIXTURES / "wer.json",
        dict(
            made_by="tests/oracle/wer.py", jiwer=version("jiwer"),
            note="words: split at white space; characters: jiwer strips both ends and counts the spaces between; corpus: all cases together",
            cases=cases,
            corpus=dict(wer=round(total.wer, 6), substitutions=total.substitutions, deletions=total.deletions,
                        insertions=total.insertions, cer=round(jiwer.cer(references, hypotheses), 6)),
        ),
    )  # fmt: skip


if __name__ == "__main__":
    main()
