"""Bodies of requests to speak to start a search from: sound ones, and such as are wrong in one way each.

    python tests/oracle/make.py speech_requests

Makes tests/fixtures/speech-requests/*.json, some of which are no JSON.
"""

import json
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "fixtures" / "speech-requests"
LEAST = {"model": "m", "input": "Hello.", "voice": "alloy"}
ALL = {
    "model": "org/voice", "input": "سلام 😀", "voice": {"id": "voice_1"}, "response_format": "wav", "stream_format": "sse", "speed": 0.25,
    "language": "Pashto", "seed": 2**64 - 1, "steps": 8, "guidance": 1.5, "temperature": 0.7,
}  # fmt: skip
# As they are written: what Python's own writer does not write.
TEXTS = {
    "spaces": b'\n{"instructions": null,\t"voice": "ben", "speed": 4e0, "input": "\\n1984 \\u0000", "model": "m"}\r\n',
    "id-twice": b'{"model": "m", "input": "a", "voice": {"id": "x", "id": "y"}}',
    "seed-twice": b'{"model": "m", "input": "a", "voice": "x", "seed": 1, "seed": 1}',
    "infinite": b'{"model": "m", "input": "a", "voice": "x", "speed": 1e400}',
    "half-a-pair": b'{"model": "m", "input": "a\\ud83d", "voice": "x"}',
    "not-utf8": b'{"model": "m", "input": "\xff", "voice": "x"}',
    "breaks-off": b'{"model": "m", "input": "Hello',
    "list": b"[]",
}
WRONG = {
    "nothing": {"model": None, "input": None, "voice": None},
    "nested": {"voice": [[[[{"id": {"id": []}}]]]]},
    "aac": {"response_format": "aac"},
    "instructions": {"instructions": "like a pirate"},
    "unknown": {"stream": True},
    "blank": {"input": " \x1b\u3000"},
    "beyond": {"guidance": 10.000000000000002, "temperature": 2, "speed": 0.25},
}


def main():
    FOLDER.mkdir(exist_ok=True)
    bodies = {"least": LEAST, "all": ALL} | {name: LEAST | more for name, more in WRONG.items()}
    texts = {name: json.dumps(body).encode() for name, body in bodies.items()} | TEXTS
    for name, text in texts.items():
        (FOLDER / f"{name}.json").write_bytes(text)


if __name__ == "__main__":
    main()
