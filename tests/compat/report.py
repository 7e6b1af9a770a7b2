"""What was checked and what came out; the conformance table."""

import contextlib
import sys
import time

WIDTH = 100


def one_line(error):
    """What is wrong, in one line of a table."""
    text = " ".join(f"{error}".split()) or "assertion failed"
    kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
    return f"{kind}{text}"[:400]


class Report:
    def __init__(self):
        self.results = []  # (group, name, error or None, seconds)
        self.fields = {}  # (endpoint, field) -> [(what the server does with it, error or None)]

    @contextlib.contextmanager
    def check(self, group, name, field=None, how=None):
        """One check: whatever is raised inside is its failure, and the others go on. `field` is (endpoint, name), `how` what a
        pass shows of it: honoured or refused."""
        started = time.monotonic()
        error = None
        try:
            yield
        except KeyboardInterrupt:
            raise
        except Exception as raised:  # noqa: BLE001
            error = one_line(raised)
        self.results.append((group, name, error, time.monotonic() - started))
        if field:
            self.fields.setdefault(field, []).append((how, error))
        if error:
            print(f"FAILED {group}: {name}: {error}", flush=True)

    def note(self, group, text):
        """A figure that no check decides."""
        print(f"       {group}: {text}", flush=True)

    @property
    def failures(self):
        return [result for result in self.results if result[2]]

    def print(self):
        groups = {}
        for group, _, error, secs in self.results:
            passed, failed, total = groups.get(group, (0, 0, 0.0))
            groups[group] = (passed + (not error), failed + bool(error), total + secs)
        if self.fields:
            print("\nconformance")
            for (endpoint, field), results in sorted(self.fields.items()):
                print(f"  {endpoint:<16}{field:<34}{verdict(results)}")
        print(f"\n{'checks':<24}{'passed':>8}{'failed':>8}{'seconds':>10}")
        for group, (passed, failed, total) in groups.items():
            print(f"{group:<24}{passed:>8}{failed:>8}{total:>10.1f}")
        for group, name, error, _ in self.failures:
            print(f"\nFAILED {group}: {name}\n  {error}")
        sys.stdout.flush()


def verdict(results):
    """What the server does with a field, as far as its checks passed."""
    failed = sum(1 for _, error in results if error)
    if failed:
        return f"FAILED ({failed} of {len(results)} checks)"
    hows = {how for how, _ in results}
    if hows == {"honoured", "refused"}:
        return "honoured; what is not allowed is refused and named"
    return {"honoured": "honoured", "refused": "refused and named"}[hows.pop()]
