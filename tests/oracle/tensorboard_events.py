"""Event files as TensorBoard's own record writer and protobuf classes make them, and a check that TensorBoard reads them
back as they were meant: values, steps, and what a resumed run replaces.

Needs tensorboard. Writes tests/fixtures/tensorboard/{run,resumed}; the same events are made in
recipes/src/metrics_log/tensorboard.rs, whose files have to be equal to the byte.
"""

import math
import shutil
import tempfile
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures" / "tensorboard"


def scalars(wall_time, step, values):
    summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values])
    return Event(wall_time=wall_time, step=step, summary=summary)


def write(path, events):
    path.parent.mkdir(exist_ok=True)
    with open(path, "wb") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString(deterministic=True))


def main():
    losses = [(1, 2.5), (2, 1.25), (300, math.nan), (4_000_000_000, 0.0)]
    write(
        FIXTURES / "run",
        [Event(wall_time=1_800_000_000.25, file_version="brain.Event:2")]
        + [scalars(1_800_000_001.5, step, [("train/loss", loss), ("train/lr", 1e-4)]) for step, loss in losses],
    )
    write(
        FIXTURES / "resumed",
        [
            Event(wall_time=1_800_000_000.75, file_version="brain.Event:2"),
            Event(wall_time=1_800_000_000.75, step=3, session_log=SessionLog(status=SessionLog.START)),
            scalars(1_800_000_010.0, 3, [("train/loss", 1.0), ("dev/wer \u067e", 0.5)]),
        ],
    )

    def read(names):
        with tempfile.TemporaryDirectory() as directory:
            for index, name in enumerate(names):
                shutil.copy(FIXTURES / name, Path(directory) / f"events.out.tfevents.180000000{index}.speechd")
            accumulator = EventAccumulator(directory).Reload()
            return {tag: accumulator.Scalars(tag) for tag in accumulator.Tags()["scalars"]}

    alone = read(["run"])
    assert [e.step for e in alone["train/loss"]] == [1, 2, 300, 4_000_000_000]
    assert [e.value for e in alone["train/loss"]][:2] == [2.5, 1.25] and math.isnan(alone["train/loss"][2].value)
    assert alone["train/loss"][0].wall_time == 1_800_000_001.5 and abs(alone["train/lr"][0].value - 1e-4) < 1e-11
    both = read(["run", "resumed"])
    assert [(e.step, e.value) for e in both["train/loss"]] == [(1, 2.5), (2, 1.25), (3, 1.0)]
    assert [(e.step, e.value) for e in both["dev/wer \u067e"]] == [(3, 0.5)]
    assert [e.step for e in both["train/lr"]] == [1, 2]


if __name__ == "__main__":
    main()
