"""BLEU and chrF by sacrebleu.

    python tests/oracle/make.py translation

Makes tests/fixtures/translation.json: corpora with the scores of every tokeniser and option that recipes has, one value for each
combination in the order in which `bleu` and `chrf` below go through them. Made with sacrebleu 2.6.0.
"""

from importlib.metadata import version
from itertools import product

from sacrebleu.metrics import BLEU, CHRF

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


def main():
    cases = []
    for name, segments in CORPORA:
        hypotheses = [hypothesis for hypothesis, _ in segments]
        references = list(zip(*(references for _, references in segments)))
        if len({len(references) for _, references in segments}) > 1:  # a segment without a second reference has None there
            most = max(len(references) for _, references in segments)
            references = list(zip(*(refs + [None] * (most - len(refs)) for _, refs in segments)))
        scores = [[metric.corpus_score(hypotheses, references).score for metric in metrics()] for metrics in (bleu, chrf)]
        # Signatures and parts of the default.
        default, characters = BLEU(), CHRF(word_order=2)
        whole = default.corpus_score(hypotheses, references)
        characters.corpus_score(hypotheses, references)
        cases.append(dict(
            name=name, segments=segments, bleu=scores[0], chrf=scores[1],
            default=dict(precisions=whole.precisions, brevity_penalty=whole.bp, counts=whole.counts, totals=whole.totals,
                         n_hypothesis=whole.sys_len, n_reference=whole.ref_len,
                         signature=default.get_signature().format(), chrf_signature=characters.get_signature().format()),
        ))  # fmt: skip
    write_json(
        FIXTURES / "translation.json",
        dict(made_by="tests/oracle/translation.py", sacrebleu=version("sacrebleu"), cases=cases),
    )


if __name__ == "__main__":
    main()
