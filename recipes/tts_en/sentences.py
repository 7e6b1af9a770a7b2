"""Makes sentences.txt out of TICO-19's English side: `python recipes/tts_en/sentences.py en-ps.tsv > recipes/tts_en/sentences.txt`.

Texts are cut at punctuation into clauses, and those of more than 14 words before the word of their middle that begins a phrase (CUTS).
Those of 2 to 14 words stay that have no digits, no symbols and no word of several capitals (an abbreviation), or of capitals and small
letters mixed; hyphens between small letters are spaces. Of them at most 5,000 are chosen, one after the other: always the one whose
words, the rarer the more, have been chosen least often so far. The order of the file is that of the choice: its beginning has as many
different words as so few clauses can have. Everything is in lower case: no word is told from another by its capitals.
"""

import heapq
import re
import sys
from collections import Counter

MAX_CLAUSES = 5000
MIN_WORDS, MAX_WORDS = 2, 14
WORD = re.compile(r"[A-Z]?[a-z]+(?:'[a-z]+)?|[AI]|I'[a-z]+")
# What begins a phrase: conjunctions and pronouns before prepositions.
CUTS = (
    {"and", "but", "or", "because", "although", "while", "when", "where", "which", "who", "whether", "if", "that", "so", "than", "until"},
    {"with", "without", "for", "from", "in", "on", "at", "by", "to", "as", "through", "after", "before", "during", "between", "among"},
)
HEAD = """\
# English clauses of 2 to 14 words out of TICO-19 (the translation initiative for COVID-19, https://tico-19.github.io), dedicated to the
# public domain under CC0 1.0, one a line, in lower case; sentences.py says how they were chosen, those with the most new words first.
"""


def pieces(words):
    """The words in pieces of at most MAX_WORDS, as far as they can be cut."""
    if len(words) <= MAX_WORDS:
        return [words]
    middle = len(words) / 2
    for cuts in CUTS:
        places = [at for at in range(3, len(words) - 2) if words[at].lower() in cuts]
        if places:
            at = min(places, key=lambda at: abs(at - middle))
            return pieces(words[:at]) + pieces(words[at:])
    return []


def clauses(line):
    """Clauses, of questions with their mark. What follows a full stop without a space is another sentence."""
    line = line.replace("\u2019", "'").replace("\u2018", "'")
    line = re.sub(r"(?<=[a-z])-(?=[a-z])", " ", line)
    for clause in re.findall(r"[^.,;:!?()\[\]\"\u201c\u201d\u2013\u2014]+[?]?", line):
        parts = pieces(clause.rstrip("?").split())
        for words in parts:
            if MIN_WORDS <= len(words) <= MAX_WORDS and all(WORD.fullmatch(word) for word in words):
                is_question = clause.endswith("?") and words is parts[-1]
                yield " ".join(words).lower() + ("?" if is_question else "")


def choose(candidates):
    """Greedy, by a heap whose entries are looked at again when they come up: a gain only ever falls."""
    counts = Counter()

    def gain(clause):
        words = sorted(set(clause.rstrip("?").split()))  # a sum in another order is another
        return sum(1 / (1 + counts[word]) ** 2 for word in words) / len(clause.split()) ** 0.5

    heap = [(-gain(clause), at) for at, clause in enumerate(candidates)]
    heapq.heapify(heap)
    chosen = []
    while heap and len(chosen) < MAX_CLAUSES:
        known, at = heapq.heappop(heap)
        now = -gain(candidates[at])
        if now > known + 1e-12:
            heapq.heappush(heap, (now, at))
            continue
        chosen.append(candidates[at])
        counts.update(set(candidates[at].rstrip("?").split()))
    return chosen


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        lines = [line.split("\t")[0] for line in file]
    candidates = list(dict.fromkeys(clause for line in lines for clause in clauses(line)))
    sys.stdout.write(HEAD + "".join(clause + "\n" for clause in choose(candidates)))


if __name__ == "__main__":
    main()
