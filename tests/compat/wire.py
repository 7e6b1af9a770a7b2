"""Requests byte by byte, for what no well-behaved client does: stopping in the middle."""

import http.client
import json
import select

BOUNDARY = "speechd-compat-7a1f0c9e55d2"
PATH = "/v1/audio/transcriptions"


def form(fields, file):
    """The body of a form whose last part is the file."""
    name, sound = file
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in fields.items()
    ]
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
    parts += [head.encode(), b"Content-Type: application/octet-stream\r\n\r\n", sound, f"\r\n--{BOUNDARY}--\r\n".encode()]
    return b"".join(parts)


class Exchange:
    """One request on a connection of its own."""

    def __init__(self, service, fields, file, share=1.0, timeout=600):
        body = form(fields, file)
        self.connection = http.client.HTTPConnection(*service.address, timeout=timeout)
        self.connection.putrequest("POST", PATH)
        self.connection.putheader("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")
        self.connection.putheader("Content-Length", str(len(body)))
        self.connection.endheaders()
        self.connection.send(body[: int(len(body) * share)])

    def answer(self):
        """Status and body."""
        response = self.connection.getresponse()
        body = response.read()
        self.connection.close()
        return response.status, body

    def first_event(self):
        """Waits for the first event of a stream."""
        response = self.connection.getresponse()
        while line := response.readline():
            if line.startswith(b"data:"):
                return json.loads(line[5:])
        raise AssertionError(f"a stream without events: status {response.status}")

    def is_answered(self):
        """Whether there is something to read: a response, or the end of the connection."""
        return bool(select.select([self.connection.sock], [], [], 0)[0])

    def hang_up(self):
        self.connection.close()


def events(body):
    """The events of a whole stream."""
    lines = [line[5:].strip() for line in body.decode().splitlines() if line.startswith("data:")]
    return [json.loads(line) for line in lines if line != "[DONE]"]
