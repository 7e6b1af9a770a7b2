"""Whisper log-mel features of a synthetic waveform, 80 and 128 bins.

    python tests/oracle/make.py log_mel

Makes tests/fixtures/log-mel.safetensors and log-mel.json. The waveform is `common.synthetic_waveform(24080)` (1.505 s at 16 kHz;
its formula stands there and in the JSON). Reference: transformers' WhisperFeatureExtractor, numpy path (float64 inside; what the
torch path and openai/whisper's log_mel_spectrogram differ by is recorded). Two paddings, which differ only near the end of the clip:

    features.<bins>        [bins, 150]  the samples alone, reflect padding at their end
    features.<bins>.padded [bins, 30]   frames 130..160 of the same clip padded with zeros to 30 s

Made with transformers 5.23.0, torch 2.15.0, openai-whisper 20250625.
"""

import numpy as np
import torch
import whisper
from safetensors.numpy import save_file
from transformers import WhisperFeatureExtractor

from common import FIXTURES, synthetic_waveform, versions, write_json

SAMPLES = 24080


def main():
    x = synthetic_waveform(SAMPLES)
    tensors, differences = {"waveform.first64": x[:64].copy()}, {}
    for bins in (80, 128):
        extractor = WhisperFeatureExtractor(feature_size=bins)
        alone = extractor._np_extract_fbank_features(x[None], "cpu")[0]
        padded_wave = np.pad(x, (0, 480000 - SAMPLES))
        padded = extractor._np_extract_fbank_features(padded_wave[None], "cpu")[0]
        assert alone.shape == (bins, SAMPLES // 160) and padded.shape == (bins, 3000)
        tensors[f"features.{bins}"] = alone.astype(np.float32)
        tensors[f"features.{bins}.padded"] = np.ascontiguousarray(padded[:, 130:160].astype(np.float32))
        tensors[f"filters.{bins}.row_sums"] = extractor.mel_filters.sum(0).astype(np.float64)
        theirs = whisper.log_mel_spectrogram(torch.from_numpy(x), n_mels=bins).numpy()
        torch_path = extractor._torch_extract_fbank_features(x[None], "cpu")[0]
        public = extractor(x, sampling_rate=16000).input_features[0]
        differences[str(bins)] = {
            "openai_whisper": float(np.abs(theirs - alone).max()),
            "transformers_torch": float(np.abs(torch_path - alone).max()),
            "call_padded_to_30_s": float(np.abs(public - padded).max()),
        }
    save_file(tensors, FIXTURES / "log-mel.safetensors")
    write_json(
        FIXTURES / "log-mel.json",
        dict(
            made_by="tests/oracle/log_mel.py",
            versions=versions(),
            samples=SAMPLES,
            sample_rate=16000,
            waveform="t = i / 16000: x[i] = 0.4 sin(2 pi (220 t + 300 t^2)) + 0.2 sin(2 pi 1234.5 t) + 0.05 u_i, f64 then f32; s = 12345; "
            "per sample s = (1664525 s + 1013904223) mod 2^32, u = s / 2^31 - 1",
            waveform_sum=float(x.astype(np.float64).sum()),
            waveform_sum_of_squares=float((x.astype(np.float64) ** 2).sum()),
            padded_frames=[130, 160],
            largest_difference_of_other_implementations=differences,
        ),
    )


if __name__ == "__main__":
    main()
