"""Reference log-mel features by transformers' WhisperFeatureExtractor, for the audio crate.

Needs numpy and transformers. Run from the repository root; writes tests/fixtures/audio/whisper_mel_<bins>.f32,
little-endian f32: the rows ROWS (all frames), then the columns COLUMNS (all bins). The waveform is made by the same
formula in audio/tests/fidelity/features.rs.
"""

import numpy as np
from transformers import WhisperFeatureExtractor

N_SAMPLES = 32_000  # 200 frames
COLUMNS = [0, 1, 2, 57, 100, 160, 199]

t = np.arange(N_SAMPLES, dtype=np.float64) / 16_000
waveform = 0.3 * np.sin(2 * np.pi * (150 * t + 600 * t * t)) + 0.05 * np.sin(2 * np.pi * 3_217.0 * t) * np.cos(2 * np.pi * 3.0 * t)
waveform[20_000:24_000] = 0.0
waveform = waveform.astype(np.float32)

for n_mels in [80, 128]:
    extractor = WhisperFeatureExtractor(feature_size=n_mels)
    rows = [0, 1, n_mels // 2, n_mels - 1]
    mel = extractor._np_extract_fbank_features(waveform[None], "cpu")[0]
    assert mel.shape == (n_mels, N_SAMPLES // 160), mel.shape
    np.concatenate([mel[rows].ravel(), mel[:, COLUMNS].T.ravel()]).astype("<f4").tofile(
        f"tests/fixtures/audio/whisper_mel_{n_mels}.f32"
    )
    torch_mel = extractor._torch_extract_fbank_features(waveform[None], "cpu")[0]
    print(n_mels, "numpy path against torch path: largest difference", np.abs(mel - torch_mel).max())
