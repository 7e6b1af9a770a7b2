"""The server under test: started on a free port, stopped by SIGTERM."""

import http.client
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

READY_SECS = 120
STOP_SECS = 90
TICKS_PER_SEC = os.sysconf("SC_CLK_TCK")


def toml(settings):
    """{"serve": {"drain_secs": 1.0}} as TOML."""
    lines = []
    for section, values in settings.items():
        lines.append(f"[{section}]")
        for key, value in values.items():
            text = {True: "true", False: "false"}.get(value, value) if isinstance(value, bool) else value
            lines.append(f'{key} = "{text}"' if isinstance(value, str) else f"{key} = {text}")
    return "\n".join(lines) + "\n"


class Service:
    """`with Service(binary, ["name=dir"], {"serve": {...}}, keys=["k"]) as service:`"""

    def __init__(self, speechd, models, settings=None, keys=(), environment=None, wait=True):
        self.speechd, self.models, self.settings = str(speechd), models, settings or {}
        self.wait = wait
        own = ("SPEECHD_", "HF_", "XDG_", "OPENAI_")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        self.environment |= {"NO_PROXY": "127.0.0.1", "HF_HUB_OFFLINE": "1", **(environment or {})}
        if keys:
            self.environment["SPEECHD_API_KEYS"] = ",".join(keys)
        self.log = []

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="speechd-compat-")
        config = Path(self.folder.name) / "speechd.toml"
        config.write_text(toml(self.settings))
        command = [self.speechd, "serve", "--listen", "127.0.0.1:0", "--config", str(config)]
        for model in self.models:
            command += ["--model", model]
        self.process = subprocess.Popen(
            command, env=self.environment | {"HOME": self.folder.name}, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
        )  # fmt: skip
        listening = threading.Event()
        threading.Thread(target=self._read, args=(listening,), daemon=True).start()
        try:
            if not listening.wait(READY_SECS) or not self.address:
                raise RuntimeError("the server does not listen:\n" + "".join(self.log[-20:]))
            if self.wait:
                self.wait_until_ready()
        except BaseException:
            self.process.kill()
            self.process.wait()
            self.folder.cleanup()
            raise
        return self

    def _read(self, listening):
        self.address = None
        for line in self.process.stderr:
            self.log.append(line)
            del self.log[:-2000]
            found = re.search(r"listening on http://([0-9.]+):(\d+)", line)
            if found and not self.address:
                self.address = (found[1], int(found[2]))
                listening.set()
        listening.set()

    def __exit__(self, *_):
        try:
            if self.process.poll() is None:
                self.stop()
        finally:
            self.folder.cleanup()

    @property
    def url(self):
        return "http://{}:{}".format(*self.address)

    @property
    def pid(self):
        return self.process.pid

    def wait_until_ready(self):
        end = time.monotonic() + READY_SECS
        while time.monotonic() < end:
            if self.get("/readyz")[0] == 200:
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise RuntimeError("the server does not become ready:\n" + "".join(self.log[-20:]))

    def get(self, path, headers=None, method="GET"):
        """Status, headers and body."""
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        try:
            connection.request(method, path, headers=headers or {})
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def stop(self):
        """SIGTERM; the exit code and the seconds it took."""
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_SECS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        return code, time.monotonic() - started

    def cpu_secs(self):
        """Processor time of the server and its children, those that have ended included."""
        total = 0
        for pid, with_ended in [(self.pid, True)] + [(child, False) for child in self.children()]:
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            except FileNotFoundError:
                continue  # it has ended meanwhile, and its parent counts it
            total += sum(int(field) for field in fields[11 : 15 if with_ended else 13])
        return total / TICKS_PER_SEC

    def children(self):
        pids = []
        for task in Path(f"/proc/{self.pid}/task").glob("*/children"):
            listed = task.read_text() if task.exists() else ""
            pids += [int(pid) for pid in listed.split()]
        return pids

    def metrics(self):
        """{"name{labels}": value}"""
        samples = {}
        for line in self.get("/metrics")[2].decode().splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                samples[name] = float(value)
        return samples
