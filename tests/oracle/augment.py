"""Reference values for the audio crate's augmentations: convolution, band filter and equaliser by scipy, G.711 by CPython's audioop,
echoes of a room by pyroomacoustics, the level of active speech by SonusAI's ITU-T P.56.

Needs numpy, scipy, safetensors, pyroomacoustics, audioop (Python 3.12 or older, or the package audioop-lts) and the file of
SonusAI that measures levels: `pip install --no-deps sonusai==1.2.1`. Writes tests/fixtures/augment.safetensors. The speech
is made by the same formula in audio/tests/fidelity/augment.rs.
"""

import audioop
import importlib.metadata
import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pyroomacoustics
import scipy.signal
from safetensors.numpy import save_file

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
RATE = 16_000
SYLLABLES = [(0.3, 0.8, 1.0), (1.3, 1.5, 0.4), (1.65, 2.1, 0.7), (2.6, 2.9, 0.2)]  # from, to (seconds), amplitude

EQUALISER_DB = [9.0, 10.0, 1.0, 0.0, -6.0, -5.0, -20.0]


def speech():
    """3.2 s: each syllable is amplitude * sin^2(pi (t - from) / (to - from)) * sin(2 pi (150 t + 40 t^2)); f32."""
    t = np.arange(int(3.2 * RATE)) / RATE
    envelope = np.zeros_like(t)
    for start, end, amplitude in SYLLABLES:
        inside = (t >= start) & (t < end)
        envelope[inside] += amplitude * np.sin(np.pi * (t[inside] - start) / (end - start)) ** 2
    return (envelope * np.sin(2 * np.pi * (150 * t + 40 * t * t))).astype(np.float32)


def active_power(samples):
    """SonusAI's P.56: its file alone, and its search between two thresholds, which ends within half a decibel, replaced by
    numpy's interpolation."""
    sys.modules["sonusai"] = types.ModuleType("sonusai")
    sys.modules["sonusai.constants"] = types.SimpleNamespace(SAMPLE_RATE=RATE)
    sys.modules["sonusai.datatypes"] = types.SimpleNamespace(AudioT=object)
    path = next(f for f in importlib.metadata.files("sonusai") if f.name == "asl_p56.py").locate()
    spec = importlib.util.spec_from_file_location("asl_p56", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def interpolate(bounds, tol):
        excess = [bounds["u_cnt"] - bounds["u_thr"], bounds["l_cnt"] - bounds["l_thr"]]
        return np.interp(bounds["margin"], excess, [bounds["u_cnt"], bounds["l_cnt"]])

    module._bin_interp = interpolate
    peak = np.abs(samples.astype(np.float64)).max()  # thresholds are relative to the peak
    return module.asl_p56(samples / peak) * peak**2


def reverberated(samples, response):
    """Aligned with the largest sample of the response, the energy kept."""
    direct = int(np.argmax(np.abs(response)))
    wet = scipy.signal.fftconvolve(samples, response / response[direct])[direct : direct + len(samples)]
    return wet * np.sqrt(np.sum(samples**2) / np.sum(wet**2))


def telephone(samples, law):
    """8 kHz in and out: band filter, then eight bits and back."""
    taps = scipy.signal.firwin(255, [300, 3400], pass_zero=False, window="hamming", fs=8_000)
    filtered = scipy.signal.fftconvolve(samples, taps)[127 : 127 + len(samples)]
    pcm = np.clip(np.round(filtered * 32768), -32768, 32767).astype("<i2")
    # ITU's software (G.191) encodes negative samples as their ones' complement; audioop does so for A-law only.
    magnitude = np.where(pcm < 0, ~pcm, pcm).astype("<i2").tobytes()
    encoded = {"mu": audioop.lin2ulaw, "a": audioop.lin2alaw}[law](magnitude, 2)
    decoded = {"mu": audioop.ulaw2lin, "a": audioop.alaw2lin}[law](encoded, 2)
    return np.where(pcm < 0, -1, 1) * np.frombuffer(decoded, "<i2") / 32768


def equalised(samples, gains_db):
    """Gains of octave bands from 125 Hz, linear between them over the logarithm of the frequency."""
    n_taps, n_freqs = 257, 513
    freqs = np.linspace(0, RATE / 2, n_freqs)
    bands = np.log2(np.maximum(freqs, 1.0) / 125)
    gains = 10 ** (np.interp(bands, np.arange(7), gains_db) / 20)
    taps = scipy.signal.firwin2(n_taps, freqs, gains, nfreqs=n_freqs, window="hamming", fs=RATE)
    return scipy.signal.fftconvolve(samples, taps)[n_taps // 2 : n_taps // 2 + len(samples)]


def room():
    """Echoes of a room of 5 x 4 x 3 m up to 50 ms after the direct sound, which has amplitude 1."""
    sides, source, microphone, rt60 = [5.0, 4.0, 3.0], [1.2, 1.0, 1.6], [3.4, 2.7, 1.3], 0.4
    surface = 2 * (5 * 4 + 5 * 3 + 4 * 3)
    left = np.exp(-24 * np.log(10) * np.prod(sides) / (343.0 * surface * rt60))  # Eyring
    shoebox = pyroomacoustics.ShoeBox(
        sides, fs=RATE, materials=pyroomacoustics.Material(1 - left), max_order=14, air_absorption=False
    )
    shoebox.add_source(source)
    shoebox.add_microphone(microphone)
    shoebox.compute_rir()
    response = shoebox.rir[0][0]
    distance = np.linalg.norm(np.subtract(source, microphone))
    end = int((distance / 343.0 + 0.05) * RATE)
    return response[:end] * distance


def main():
    pyroomacoustics.constants.set("c", 343.0)
    pyroomacoustics.constants.set("rir_hpf_enable", False)  # echoes alone, as Allen and Berkley sum them
    rng = np.random.default_rng(1)
    response = 0.15 * rng.standard_normal(600) * np.exp(-np.arange(600) / 90)
    response[25] = -1.0
    response = response.astype(np.float32)
    x = speech()
    call = (0.7 * x[4_800:8_800] + 0.003 * rng.standard_normal(4_000)).astype(np.float32)
    save_file(
        {
            "active_power": np.array([active_power(x)], dtype=np.float64),
            "response": response,
            "reverberated": reverberated(x[4_800:8_800].astype(np.float64), response.astype(np.float64)).astype(np.float32),
            "call": call,
            "telephone_mu": telephone(call.astype(np.float64), "mu").astype(np.float32),
            "telephone_a": telephone(call.astype(np.float64), "a").astype(np.float32),
            "equalised": equalised(x[4_800:8_800].astype(np.float64), EQUALISER_DB).astype(np.float32),
            "room": room().astype(np.float32),
        },
        FIXTURES / "augment.safetensors",
    )


if __name__ == "__main__":
    main()
