"""Texts as Whisper's normalisers leave them, by transformers' copy of openai/whisper's code.

    python tests/oracle/make.py normaliser

Makes tests/fixtures/normaliser.json. `english` holds [text, english]: numbers, currencies, ordinals, contractions, titles.
`unicode_cases` holds [text, basic, basic-remove-diacritics, basic-split-letters, english]. Half of the texts are written down here, the
others are drawn from the words that the number normaliser knows, and are mostly nonsense: its rules have to hold there too. Made
with transformers 5.23.0 on Python 3.11 (Unicode 14).
"""

import json
import random
import unicodedata

import transformers
from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

from common import FIXTURES, ROOT, write_json

SPELLING = ROOT / "recipes/src/text/english/english.json"

ENGLISH = [
    "", " ", "...", "Hello, World!", "Mr. Smith won't go; he's been there. He'd gone.", "I'ma do it, y'all", "Ma'am, let's go!",
    "St. John's St.", "Dr. Strange and Prof. X", "the Rev. and the Hon. Gov.", "He'd been, she's got, they'd done", "ain't it o'clock",
    "uh, um, hmm, mm-hmm, mhm ... right", "[noise] hello (laughs) <unk> world", "((nested) brackets)", "() empty [] brackets <>",
    "unclosed (bracket and [another", "I 'll come", "rock 'n' roll", "the colour of the theatre's grey armour", "U.S.A. vs. U.K.",
    "1,000,000 people", "12,345.67", "1,2,3", "3.14.", "192.168.0.1", "one point two point three", "version 2 point 0 point 1",
    "twenty one", "twenty eleven", "twenty twenty", "nineteen ninety nine", "two thousand and one", "two thousand nineteen",
    "one hundred and one dalmatians", "a hundred and fifty", "one oh one", "double oh seven", "triple eight", "double nineteen",
    "double trouble", "six double", "zero point five", "point five", "point hundred", "oh no", "o o o", "zeroth first second third",
    "twenty first", "twenty-first century", "ninth and nineth", "the nineteen eighties", "the sixes and sevens", "hundreds of thousands",
    "five thousands", "thirty thousandth", "hundredth", "two and a half", "and a half", "and a half million", "ten and a half percent",
    "dog and a half", "minus five", "minus and dog", "minus", "negative twenty degrees", "plus one", "five dollars", "five dollars and six cents",
    "twenty pounds fifty", "a dollar", "dollars", "one euro", "one thousand euros", "$5 and ¢7", "$5 and 7 cents", "$0.05", "$0.36 and more",
    "€0.07", "$1.5 million", "$20 and fifty", "£3.50", "5%", "five percent", "five per cent", "five per person", "per cent", "% alone", "a%",
    "1st 2nd 3rd 4th", "1 st avenue", "5 th", "5 sth", "1960s", "1960 s", "10km", "b747", "x2y", "A4 paper", "1", "1s", "11", "one", "ones",
    "one ones", "million million", "one million two hundred thousand and three", "five hundred million billion",
    "nine hundred ninety nine decillion nine hundred", "12345678901234567890123456789012345678901234567890 million",
    "0.5 million", "0.33 hundred", "0 thousand", "zero thousand", "1.005 thousand", "3. million", "three point", "three point dog",
    "$ 5", "$five", "+5 -5", "five-six", "5-6", "a.b.c 1.a", ".5", "5.", "$.5", "¢", "100¢", "1'000", "'s", "it's 5's",
]  # fmt: skip

UNICODE = [
    "Straße GROẞE Ærø ŒUVRE Łódź Þór ðag đak", "ΟΔΥΣΣΕΥΣ Σ ΑΣ.", "İstanbul ISPARTA ıI", "ﬁne ½ ² Ⅷ ① № ™ ㎏ ﷺ", "cafe\u0301 café naïve",
    "Zürich, Ångström", "مَرْحَبًا بِكُمْ", "دغه علايم له څومره مودې راهيسې ادامه لري؟", "ئ ؤ أ إ آ ۀ ة ى ي ی ك ک", "می\u200cخواهم \u200fx\u200e",
    "هَٰذَا", "١٢٣ و ٤٫٥ ۶۷۸ ٣.٥ million", "हिन्दी में लिखा है", "ภาษาไทย ไม่มีช่องว่าง", "我们今天去北京。", "今日は、いい天気ですね！", "한국어 텍스트", "\u1112\u1161\u11ab",
    "😀👍🏽 👨\u200d👩\u200d👧 🇩🇪", "a\u00a0b\u2009c\u3000d\u2028e\x1cf\tg\n", "« guillemets » „quotes“ ‚single‘", "d\u2019accord won\u2019t", "x_y a\u0301_b", "5\u20ac \u20b15 \u00a55",
    "é's e\u0301's", "mr\u0301 mr", "one\u200dtwo 5\u200dth", "𝟙𝟚𝟛 ４５６ ²³", "৳৫০০ ௰ ᛮ", "<\u0645\u062b\u0627\u0644> (\u4f8b) [x",
]  # fmt: skip


def main():
    english = EnglishTextNormalizer(json.loads(SPELLING.read_text(encoding="utf-8")))
    basic = [
        BasicTextNormalizer(),
        BasicTextNormalizer(remove_diacritics=True),
        BasicTextNormalizer(split_letters=True),
    ]
    generator = random.Random(20250625)
    numbers = sorted(english.standardize_numbers.words)
    others = (
        "5 12 0 3.5 100 1,000 $5 £2.50 €0.36 $0.07 10% 2nd 1960s b747 the of dog hmm mr. he's she'd they're can't colour . ,"
    ).split()
    drawn = []
    for n_words in range(2, 10):
        for _ in range(15):
            words = [generator.choice(numbers if generator.random() < 0.75 else others) for _ in range(n_words)]
            drawn.append(" ".join(words))
    write_json(
        FIXTURES / "normaliser.json",
        dict(
            made_by="tests/oracle/normaliser.py", transformers=transformers.__version__, unicode=unicodedata.unidata_version,
            english=[[text, english(text)] for text in ENGLISH + drawn],
            unicode_cases=[[text, *(one(text) for one in basic), english(text)] for text in UNICODE + ENGLISH[:12]],
        ),
    )  # fmt: skip


if __name__ == "__main__":
    main()
