"""Reference resampling of a chirp by soxr (VHQ), for the audio crate.

Needs numpy and soxr. Run from the repository root; writes tests/fixtures/audio/chirp_<in>_<out>.f32, little-endian
f32. The chirp is made by the same formula in audio/tests/fidelity/resampling.rs.
"""

import numpy as np
import soxr

SECONDS = 0.125


def chirp(rate: int, end_hz: float) -> np.ndarray:
    """From 100 Hz to end_hz in SECONDS, amplitude 0.5, with raised-cosine fades of 10 ms; f64."""
    n = int(SECONDS * rate)
    t = np.arange(n) / rate
    fade = np.minimum(1.0, np.minimum(np.arange(n), n - 1 - np.arange(n)) / (0.01 * rate))
    fade = np.sin(np.pi / 2 * fade) ** 2
    return 0.5 * fade * np.sin(2 * np.pi * (100.0 * t + (end_hz - 100.0) / (2 * SECONDS) * t * t))


for rate_in, rate_out, end_hz in [(44_100, 16_000, 7_000.0), (48_000, 16_000, 7_000.0), (8_000, 16_000, 3_400.0)]:
    reference = soxr.resample(chirp(rate_in, end_hz), rate_in, rate_out, quality="VHQ")
    reference.astype("<f4").tofile(f"tests/fixtures/audio/chirp_{rate_in}_{rate_out}.f32")
    print(rate_in, rate_out, len(reference))
