"""speech-distance.json: mel-cepstra by scipy's DCT, the warping path by librosa, and pitch by YIN, as its paper has it and as librosa has it.

Inputs are formulas that the Rust tests repeat: common.synthetic_mel, and the voice below.
"""

import math

import librosa
import numpy as np
import scipy.fft
from common import FIXTURES, synthetic_mel, write_json

RATE, HOP = 16000, 256
MIN_HZ, MAX_HZ, THRESHOLD = 60.0, 500.0, 0.15
N_CEPSTRA = 13


def cepstra(mel):
    """[13, frames]: ln S_m = sum c_k cos(pi k (m + 1/2) / M)."""
    return scipy.fft.dct(mel.astype(np.float64), type=2, axis=0)[1 : N_CEPSTRA + 1] / mel.shape[0]


def distortion_db(one, other):
    return 10 / math.log(10) * np.sqrt(2 * ((one[:, :, None] - other[:, None, :]) ** 2).sum(axis=0))


def synthetic_voice(hz, slope, samples):
    """Ten overtones of hz + slope t Hz, falling as 1 / k, with a pause from 0.3 to 0.45 s; a little of common.synthetic_waveform's noise."""
    out, s = np.empty(samples), 12345
    for i in range(samples):
        s = (1664525 * s + 1013904223) % (1 << 32)
        noise, t = s / 2**31 - 1, i / RATE
        phase = 2 * math.pi * (hz * t + slope / 2 * t * t)
        voice = sum(math.sin(k * phase + k) / k for k in range(1, 11))
        out[i] = 0.001 * noise if 0.3 <= t < 0.45 else 0.2 * voice + 0.002 * noise
    return out.astype(np.float32)


def yin(samples):
    """de Cheveigne and Kawahara 2002, steps 1 to 5, with a window of two of the longest periods; frames centred among zeros."""
    min_lag, max_lag = math.floor(RATE / MAX_HZ), math.ceil(RATE / MIN_HZ)
    window = 2 * max_lag
    length = window + max_lag + 1
    padded = np.pad(samples.astype(np.float64), length)
    pitches = []
    for frame in range(1 + len(samples) // HOP):
        start = frame * HOP - length // 2 + length
        x = padded[start : start + length]
        d = np.array([((x[:window] - x[lag : lag + window]) ** 2).sum() for lag in range(max_lag + 2)])
        n = np.ones_like(d)
        n[1:] = d[1:] * np.arange(1, max_lag + 2) / np.cumsum(d[1:])
        below = [lag for lag in range(min_lag, max_lag + 1) if n[lag] < THRESHOLD]
        if not below:
            pitches.append(None)
            continue
        lag = below[0]
        while lag < max_lag and n[lag + 1] < n[lag]:
            lag += 1
        left, middle, right = n[lag - 1 : lag + 2]
        curvature = left - 2 * middle + right
        offset = 0.5 * (left - right) / curvature if curvature > 0 else 0.0
        pitches.append(RATE / (lag + (offset if abs(offset) <= 0.5 else 0.0)))
    return pitches


def main():
    # The same, nearly, at two speeds.
    one, other = cepstra(synthetic_mel(80, 800, 0)[:, ::35]), cepstra(synthetic_mel(80, 800, 0.05)[:, ::26])
    costs = distortion_db(one, other)
    total, path = librosa.sequence.dtw(C=costs)
    path = path[::-1]
    mean = float(total[-1, -1] / len(path))

    voice = synthetic_voice(130.0, 60.0, 12000)
    ours = yin(voice)
    theirs = librosa.yin(
        voice.astype(np.float64), fmin=MIN_HZ, fmax=MAX_HZ, sr=RATE, frame_length=1024, hop_length=HOP, trough_threshold=THRESHOLD
    )
    # librosa has a pitch for every frame; those at the edges and beside the pause hear half a frame.
    times = np.arange(len(ours)) * HOP / RATE
    inside = ((times > 0.05) & (times < 0.25)) | ((times > 0.5) & (times < 0.7))
    write_json(
        FIXTURES / "speech-distance.json",
        {
            "scipy": scipy.__version__,
            "librosa": librosa.__version__,
            "cepstra": [[round(float(v), 9) for v in frame] for frame in one.T],
            "path": path.tolist(),
            "distortion_db": round(mean, 9),
            "pitch": {
                "paper": [None if f is None else round(f, 6) for f in ours],
                "librosa": [round(float(f), 4) if is_inside else None for f, is_inside in zip(theirs, inside)],
            },
        },
    )


if __name__ == "__main__":
    main()
