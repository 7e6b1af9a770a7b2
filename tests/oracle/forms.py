"""Forms to start from: what the official client and `requests` send, and one that means harm.

    python tests/oracle/make.py forms

Makes tests/fixtures/forms/*.form, all with the boundary `b0undary`. Nothing is sent anywhere.
"""

import re
from pathlib import Path

import httpx
import openai
import requests

FOLDER = Path(__file__).resolve().parents[1] / "fixtures" / "forms"
BOUNDARY = b"b0undary"
WAV = b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data\0\0\0\0"


def rename(body, content_type):
    boundary = re.search("boundary=(.*)", content_type).group(1).strip('"')
    return body.replace(boundary.encode(), BOUNDARY)


def client():
    """Every parameter of transcriptions.create that does not contradict another."""
    forms = []

    def answer(request):
        forms.append(rename(request.read(), request.headers["content-type"]))
        return httpx.Response(200, text="")

    http = httpx.Client(transport=httpx.MockTransport(answer))
    openai.OpenAI(api_key="x", base_url="http://localhost/v1", http_client=http).audio.transcriptions.create(
        file=("talk.wav", WAV),
        model="whisper-1",
        chunking_strategy={"type": "server_vad", "silence_duration_ms": 700, "threshold": 0.4},
        include=["logprobs"],
        keywords=["Kabul", "Herat"],
        languages=["ps", "en"],
        prompt="پښتو",
        response_format="json",
        stream=True,
        temperature=0.0,
        extra_body={"beam_size": 3, "fallback": False, "hotwords": ["Balkh"]},
    )
    return forms[0]


def curl():
    """The file first, as the API's documents show it for curl."""
    fields = [("timestamp_granularities[]", "word"), ("timestamp_granularities[]", "segment"), ("model", "whisper-1")]
    fields = [(name, (None, value)) for name, value in [*fields, ("response_format", "verbose_json")]]
    parts = [("file", ("talk.wav", WAV, "audio/wav")), *fields]
    request = requests.Request("POST", "http://localhost", files=parts).prepare()
    return rename(request.body, request.headers["content-type"])


def hostile():
    def part(name, value, more=b""):
        head = b'--%s\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n' % (BOUNDARY, name, more)
        return head + value + b"\r\n"

    return b"".join(
        [
            b"preamble\r\n",
            part(b"a[b][c][d]", b"\r\n--b0undar\r\n"),
            part(b'name\\"quoted\\"', b"\xff\xfe"),
            part(b"file", b"x\r\n--b0unda", b'; filename="../../etc/passwd\0"\r\nContent-Type: nonsense'),
            part(b"file", b"y"),
            b"--b0undary \t \r\nX: y\r\n\r\n\r\n--b0undary--\r\nepilogue",
        ]
    )


def main():
    FOLDER.mkdir(exist_ok=True)
    for make in (client, curl, hostile):
        (FOLDER / f"{make.__name__}.form").write_bytes(make())


if __name__ == "__main__":
    main()
