"""Compression ratios as openai/whisper's fallback rule sees them: bytes of UTF-8 over bytes after zlib.compress (level 6).

    python tests/oracle/make.py compression

Makes tests/fixtures/compression.json. `zlib_bytes` is what zlib itself makes; another deflate (miniz) may differ by a few bytes, so
compare the ratio with a tolerance, and which side of 2.4 it falls on exactly. Also the ratio in token space that transformers uses
(`generate(compression_ratio_threshold=..)`): each id as int(log2(vocab_size) / 8) + 1 little-endian bytes.
"""

import math
import zlib

from common import FIXTURES, write_json

TEXTS = {
    "ha": "ha " * 50,
    "hello": "hello world",
    "one letter": "a",
    "english": "And so my fellow Americans, ask not what your country can do for you, ask what you can do for your country.",
    "pashto": "دغه علايم له څومره مودې راهيسې ادامه لري؟",
    "pashto loop": "دغه علايم " * 12,
    "pashto sentence": "په خاصه بیا ستاسو عمر ته په کتو سره د سینې د ټول درد باید پدې ډول درملنه وشي.",
    "chinese": "我们今天讨论的是语音识别模型的训练和推理。",
    "emoji": "🎵" * 20,
    "digits": "one two three four five six seven eight nine zero one two three four five",
    "thanks": " Thank you." * 7,
    "just under": " so we went down to the river" * 3,
}

TOKENS = [
    (51866, [50365, 2221, 13, 50400]),
    (51866, [1045] * 60),
    (51866, list(range(300, 400))),
    (51866, [264, 3899, 366, 264, 3899, 366] * 6),
    (1817, [89] * 12 + [120, 142]),
]


def main():
    texts = []
    for name, text in TEXTS.items():
        raw = text.encode("utf-8")
        compressed = zlib.compress(raw)
        texts.append(
            dict(name=name, text=text, bytes=len(raw), zlib_bytes=len(compressed), ratio=round(len(raw) / len(compressed), 6))
        )
    tokens = []
    for vocab, ids in TOKENS:
        width = int(math.log2(vocab) / 8) + 1
        raw = b"".join(t.to_bytes(width, "little") for t in ids)
        compressed = zlib.compress(raw)
        tokens.append(
            dict(vocab_size=vocab, ids=ids, bytes=len(raw), zlib_bytes=len(compressed),
                 ratio=round(len(raw) / len(compressed), 6))
        )  # fmt: skip
    write_json(
        FIXTURES / "compression.json",
        dict(made_by="tests/oracle/compression.py", zlib=zlib.ZLIB_RUNTIME_VERSION, texts=texts, tokens=tokens),
    )


if __name__ == "__main__":
    main()
