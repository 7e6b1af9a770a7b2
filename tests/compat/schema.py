"""schemathesis over the running server: every check of it, in all phases, from /openapi.json."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


def run(report, service, max_examples, seed):
    command = [
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml"),
        "run", f"{service.url}/openapi.json", "--url", service.url, "--max-examples", str(max_examples),
        "--seed", str(seed), "--generation-database", "none", "--no-color",
    ]  # fmt: skip
    started = time.monotonic()
    with report.check("schemathesis", f"{max_examples} examples"), tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"SCHEMATHESIS_HOOKS": "schema_hooks", "PYTHONPATH": str(HERE)}
        done = subprocess.run(command, env=environment, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        # Recordings are in the commands that it prints.
        print("\n".join(line[:300] for line in done.stdout.splitlines()), flush=True)
        assert done.returncode == 0, f"schemathesis found something (exit code {done.returncode}); see above"
        assert service.process.poll() is None, "the server has ended"
        assert service.get("/readyz")[0] == 200, "the server is not ready any more"
    report.note("schemathesis", f"{time.monotonic() - started:.0f} s")
