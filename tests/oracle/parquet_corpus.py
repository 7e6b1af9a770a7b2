"""A corpus as Hugging Face's `datasets` stores it: Parquet with recordings inside.

    python tests/oracle/make.py parquet_corpus

Makes tests/fixtures/parquet/train-00000-of-00001.parquet: three rows, one of them without a recording. Made with pyarrow 26.0.1.
"""

import io
import math
import struct
import wave

import pyarrow
import pyarrow.parquet

from common import FIXTURES


def wav(n_samples):
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8_000)
        out.writeframes(b"".join(struct.pack("<h", int(9000 * math.sin(i * 0.3))) for i in range(n_samples)))
    return file.getvalue()


def main():
    rows = [
        {"audio": {"bytes": wav(800), "path": "a.wav"}, "sentence": "one two", "client_id": "s1", "up_votes": 2, "locale": "en"},
        {"audio": {"bytes": wav(1600), "path": "a.wav"}, "sentence": "درې", "client_id": "s2", "up_votes": 0, "locale": "ps"},
        {"audio": {"bytes": None, "path": "elsewhere.wav"}, "sentence": "x", "client_id": "s2", "up_votes": 0, "locale": "ps"},
    ]
    kind = pyarrow.schema([
        ("audio", pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])),
        ("sentence", pyarrow.string()), ("client_id", pyarrow.string()), ("up_votes", pyarrow.int64()),
        ("locale", pyarrow.string()),
    ])
    path = FIXTURES / "parquet" / "train-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=kind), path, compression="snappy")


if __name__ == "__main__":
    main()
