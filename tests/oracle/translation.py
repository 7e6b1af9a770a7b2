"""BLEU, chrF and TER by sacrebleu.

    python tests/oracle/make.py translation

Makes tests/fixtures/translation.json: corpora with the scores of every tokeniser and option that recipes has, one value for each
combination in the order in which `bleu`, `chrf` and `ter` below go through them, and `shifts`, segments with the edits that TER
counts, in which words stand elsewhere. Made with sacrebleu 2.6.0.
"""

import random
from importlib.metadata import version
from itertools import product

from sacrebleu.metrics import BLEU, CHRF, TER

from common import FIXTURES, write_json

# [name, [[hypothesis, [references]], ..]]
CORPORA = [
    ("one reference", [
        ["The dog bit the man.", ["The dog had bit the man."]],
        ["It wasn't surprising.", ["No one was surprised."]],
        ["The man had just bitten him.", ["The man had bitten the dog."]],
    ]),
    ("two references", [
        ["The dog bit the man.", ["The dog bit the man.", "The dog had bit the man."]],
        ["It wasn't surprising.", ["It was not unexpected.", "No one was surprised."]],
        ["The man had just bitten him.", ["The man bit him first.", "The man had bitten the dog."]],
    ]),
    ("three references, one empty", [
        ["a b c d e", ["a b c d", "", "b c d e f g"]],
        ["x y", ["x y z", "x", "y x"]],
    ]),
    ("empty hypotheses", [["", ["The dog bit the man."]], ["The cat sat.", ["The cat sat on the mat."]]]),
    ("nothing but empty", [["", ["The dog bit the man."]], [" ", ["It was not unexpected."]]]),
    ("empty reference", [["The dog", [""]], ["the cat sat on the mat", ["the cat sat on a mat"]]]),
    ("no match", [["one two three four five", ["six seven eight nine ten"]]]),
    ("only words match", [["one two three four", ["four three two one"]]]),
    ("one word", [["test", ["a test"]]]),
    ("shorter than four", [["a test", ["a test"]]]),
    ("exact", [["The quick brown fox jumps over the lazy dog.", ["The quick brown fox jumps over the lazy dog."]]]),
    ("numbers and marks", [
        ["In 2010, 1,000.50 US$ (50%) were paid -- e-mail: a@b.org/x?y=1&z.", ["In 2010., 1,000.5 US-$ (50 %) was paid - e-mail a@b.org/x?y=1&z;"]],
        ["&quot;It&apos;s&quot; 5-6 &lt;skipped&gt; <skipped> end.", ["\"It's\" 5-6 <skipped> end . "]],
        ["«Οὐχὶ» “ταὐτὰ”… €5 №7 ½", ["«Οὐχὶ ταὐτά» ... €5, №7 ½!"]],
    ]),
    ("case", [["THE Cat SAT on THE Mat", ["the cat sat on the mat"]], ["ΟΔΥΣΣΕΥΣ É", ["Οδυσσευς é"]]]),
    ("pashto", [
        ["دغه علايم څومره مودې راهیسې ادامه لري نن؟", ["دغه علايم له څومره مودې راهيسې ادامه لري؟"]],
        ["هو، زه پوهیږم.", ["هو، زه پوهېږم۔", "هو زه پوهېږم."]],
    ]),
    ("chinese and japanese", [
        ["我们明天去北京吧。ABC 123", ["我们今天去北京。ABC 1234", "我们今天要去北京。"]],
        ["今日は、いい天気でした！", ["今日はいい天気ですね！", "今日は良い天気でした。"]],
    ]),
    ("possessives, line ends and kana", [
        ["The dog's tail's it's\n-s 3.5-4 cm,\nsaid he.", ["The dogs tail 's it 's 3.5 - 4 cm, said he"]],
        ["ひらがなカタカナ㈱ｱ、「日本」・（ㇰ）！", ["ひらがな カタカナ ㈱ ｱ 日 本 ㇰ"]],
    ]),
    ("white space", [["  a  b\tc\u00a0d ", ["a b c d"]], ["a\u2028b c\n", ["a b c"]]]),
]  # fmt: skip


def bleu():
    tokenizers = ("none", "13a", "intl", "zh", "char")
    for tokenize, lowercase, effective_order in product(tokenizers, (False, True), (False, True)):
        for smooth_method, smooth_value in (("exp", None), ("none", None), ("floor", 0.1), ("add-k", 1)):
            yield BLEU(
                tokenize=tokenize, lowercase=lowercase, effective_order=effective_order, smooth_method=smooth_method,
                smooth_value=smooth_value, force=True,
            )  # fmt: skip


def chrf():
    for word_order, lowercase, whitespace, eps_smoothing in product((0, 2), (False, True), (False, True), (False, True)):
        yield CHRF(word_order=word_order, lowercase=lowercase, whitespace=whitespace, eps_smoothing=eps_smoothing)


def ter():
    for normalized, no_punct, asian_support, case_sensitive in product((False, True), repeat=4):
        yield TER(
            normalized=normalized, no_punct=no_punct, asian_support=asian_support, case_sensitive=case_sensitive
        )


SHIFTED = [
    ["on the mat the cat sat", ["the cat sat on the mat"]],
    ["the the cat the cat sat the", ["the cat the the cat sat"]],
    ["نن دغه علايم له مودې څومره راهيسې", ["دغه علايم له څومره مودې راهيسې نن"]],
    ["زه هو پوهېږم هو زه", ["هو زه پوهېږم", "هو هو زه"]],
    ["", [""]],
    ["", ["a b c"]],
    ["a b c", [""]],
    ["a b c", ["c a b", ""]],
    ["a b c d", ["d a b", "c d a b e", "b"]],
]


def moved(rng, words):
    """The words with some of them moved, left out, put in or said again."""
    words = list(words)
    for _ in range(rng.randrange(6)):
        start = rng.randrange(len(words) + 1)
        end = start + rng.randrange(1, 14)
        part, rest = words[start:end], words[:start] + words[end:]
        place = rng.randrange(len(rest) + 1)
        kind = rng.random()
        if kind < 0.7:
            words = rest[:place] + part + rest[place:]
        elif kind < 0.8:
            words = rest
        elif kind < 0.9:
            words = words[:place] + part + words[place:]
        else:
            words = words[:place] + ["new"] + words[place:]
    return words


def shifts():
    """Segments in which words stand elsewhere: random ones over few and over many words, and those that meet TER's limits."""
    rng = random.Random(7)
    segments = list(SHIFTED)
    for n_kinds in (2, 4, 10, 40):
        kinds = [rng.choice(["w", "م"]) + str(i) for i in range(n_kinds)]
        for _ in range(30):
            references = [rng.choices(kinds, k=rng.randrange(1, 25)) for _ in range(rng.choice((1, 1, 1, 3)))]
            said = moved(rng, rng.choice(references)) if rng.random() < 0.7 else rng.choices(kinds, k=rng.randrange(25))
            segments.append([" ".join(said), [" ".join(words) for words in references]])
    many = [f"v{i}" for i in range(300)]
    pairs = [
        (many[100:] + many[:100], many),  # moved farther than words may be
        (many[40:80] + many[:40] + many[80:], many),  # by the longest distance, in parts of ten words
        (moved(rng, many), many),
        (rng.choices(many[:3], k=120), rng.choices(many[:3], k=110)),  # more candidates than are tried
        (rng.choices(many[:30], k=120), rng.choices(many[:30], k=130)),
        (moved(rng, many[:30] + ["v"] * 60 + many[30:60]), many[:60] + ["v"] * 20),  # off the diagonal
        (many[200:] + ["v"] * 70 + many[:30], many[:30] + many[200:]),
        (["v7", "v290"], many),  # a beam that has to be wider
        (["v250"], many[:240] + ["v250"] * 30),
        (many, ["v7", "v290", "v3"]),
        (["loop"] * 200, ["a", "loop", "b", "loop", "c"]),
    ]
    # Draws whose edits change when a limit is one more or one less, a preference is another, or a condition of shifts is left out.
    for seed in (2, 7, 25, 88, 200, 309, 343, 628, 944, 1021):
        rng = random.Random(seed)
        pairs.append([rng.choices(many[:30], k=rng.randrange(50, 110)) for _ in range(2)])
    return segments + [[" ".join(said), [" ".join(words)]] for said, words in pairs]


def main():
    cases = []
    for name, segments in CORPORA:
        hypotheses = [hypothesis for hypothesis, _ in segments]
        references = list(zip(*(references for _, references in segments)))
        if len({len(references) for _, references in segments}) > 1:  # a segment without a second reference has None there
            most = max(len(references) for _, references in segments)
            references = list(zip(*(refs + [None] * (most - len(refs)) for _, refs in segments)))
        scores = [[metric.corpus_score(hypotheses, references).score for metric in metrics()] for metrics in (bleu, chrf, ter)]
        # Signatures and parts of the default.
        default, characters, edits = BLEU(), CHRF(word_order=2), TER()
        whole = default.corpus_score(hypotheses, references)
        characters.corpus_score(hypotheses, references)
        edits.corpus_score(hypotheses, references)
        cases.append(dict(
            name=name, segments=segments, bleu=scores[0], chrf=scores[1], ter=scores[2],
            default=dict(precisions=whole.precisions, brevity_penalty=whole.bp, counts=whole.counts, totals=whole.totals,
                         n_hypothesis=whole.sys_len, n_reference=whole.ref_len,
                         signature=default.get_signature().format(), chrf_signature=characters.get_signature().format(),
                         ter_signature=edits.get_signature().format()),
        ))  # fmt: skip
    counted = []
    for hypothesis, references in shifts():
        score = TER().sentence_score(hypothesis, references)
        counted.append([hypothesis, references, score.num_edits, score.ref_length])
    write_json(
        FIXTURES / "translation.json",
        dict(made_by="tests/oracle/translation.py", sacrebleu=version("sacrebleu"), cases=cases, shifts=counted),
    )


if __name__ == "__main__":
    main()
