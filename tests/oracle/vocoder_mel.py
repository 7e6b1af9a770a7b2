"""Features that vocoders read, spectra of the frames behind them, and what inverse transforms make of random spectra.

    python tests/oracle/make.py vocoder_mel

Makes tests/fixtures/vocoder-mel.safetensors and vocoder-mel.json. The waveforms are `common.synthetic_waveform(n, rate)`; their
formula stands there and in the JSON. Reference: `torch.stft` (centred, reflected) in float64 under the mel filters of
`transformers.audio_utils`, ln(max(x, 1e-7)). What torchaudio's MelSpectrogram, which Vocos calls and which rounds its filters
to float32, differs by is recorded.

    features.<rate>.<bins>                  [bins, frames]
    stft.<rate>                             [frames, n_fft / 2 + 1, 2]   the frames named in the JSON, real and imaginary
    spectrogram.<n_fft>.<window>.<hop>      [frames, n_fft / 2 + 1, 2]   normal random numbers, the spectrum of no signal
    istft.<n_fft>.<window>.<hop>.centred    [(frames - 1) * hop]         torch.istft of them
    istft.<n_fft>.<window>.<hop>.same       [frames * hop]               Vocos's padding "same": irfft, window, fold, (n_fft - hop) / 2 off
                                                                         both ends, divided by the folded squares of the window

Made with torch 2.15.0, transformers 5.24.0, torchaudio 2.11.1.
"""

import numpy as np
import torch
import torchaudio
from safetensors.numpy import save_file
from transformers.audio_utils import mel_filter_bank

from common import FIXTURES, synthetic_waveform, versions, write_json

N_FFT, HOP = 1024, 256
FEATURES = [(24000, 100, 4800), (16000, 80, 4080)]  # rate, mel bins, samples
STFT_FRAMES = [0, 1, 9, 18]
INVERSES = [(64, 64, 16, 9), (64, 48, 20, 7), (1024, 1024, 256, 4)]  # n_fft, window, hop, frames


def stft(x):
    window = torch.hann_window(N_FFT, dtype=torch.float64)
    return torch.stft(x, N_FFT, HOP, window=window, center=True, pad_mode="reflect", return_complex=True)


def log(mel):
    return torch.log(torch.clip(mel, min=1e-7))


def same(bins, n_fft, window, hop):
    """bins [n_fft / 2 + 1, frames]; window padded to n_fft."""
    frames = torch.fft.irfft(bins, n_fft, dim=0) * window[:, None]
    length = (frames.shape[1] - 1) * hop + n_fft

    def fold(x):
        return torch.nn.functional.fold(x[None], (1, length), (1, n_fft), stride=(1, hop))[0, 0, 0]

    margin = (n_fft - hop) // 2
    envelope = fold((window**2)[:, None].expand(-1, frames.shape[1]))[margin:-margin]
    assert (envelope > 1e-11).all()
    return fold(frames)[margin:-margin] / envelope


def main():
    tensors, differences = {}, {}
    for rate, bins, samples in FEATURES:
        x = torch.from_numpy(synthetic_waveform(samples, rate))
        spectrum = stft(x.double())
        filters = mel_filter_bank(N_FFT // 2 + 1, bins, 0.0, rate / 2, rate, norm=None, mel_scale="htk")
        features = log(torch.from_numpy(filters).double().T @ spectrum.abs())
        assert features.shape == (bins, 1 + samples // HOP)
        tensors[f"features.{rate}.{bins}"] = features.float().numpy()
        vocos = torchaudio.transforms.MelSpectrogram(
            sample_rate=rate, n_fft=N_FFT, hop_length=HOP, n_mels=bins, center=True, power=1
        )
        differences[f"{rate}"] = float((log(vocos(x)).double() - features).abs().max())
        if rate == 24000:
            chosen = torch.view_as_real(spectrum[:, STFT_FRAMES].T.contiguous())
            tensors[f"stft.{rate}"] = chosen.float().numpy()
    random = torch.Generator().manual_seed(7)
    for n_fft, window_samples, hop, frames in INVERSES:
        name = f"{n_fft}.{window_samples}.{hop}"
        # [frames, bins, 2]. Also the imaginary parts of the first and the last bin, which a real signal's lack: they count for nothing.
        numbers = torch.randn(frames, n_fft // 2 + 1, 2, generator=random)
        bins = torch.view_as_complex(numbers.double()).T
        window = torch.hann_window(window_samples, dtype=torch.float64)
        centred = torch.istft(bins, n_fft, hop, window_samples, window, center=True)
        assert centred.shape == ((frames - 1) * hop,)
        left = (n_fft - window_samples) // 2
        padded = torch.nn.functional.pad(window, (left, n_fft - window_samples - left))
        tensors[f"spectrogram.{name}"] = numbers.numpy()
        tensors[f"istft.{name}.centred"] = centred.float().numpy()
        tensors[f"istft.{name}.same"] = same(bins, n_fft, padded, hop).float().numpy()
        assert tensors[f"istft.{name}.same"].shape == (frames * hop,)
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, FIXTURES / "vocoder-mel.safetensors")
    write_json(
        FIXTURES / "vocoder-mel.json",
        dict(
            made_by="tests/oracle/vocoder_mel.py",
            versions=versions() | {"torchaudio": torchaudio.__version__.split("+")[0]},
            n_fft=N_FFT,
            hop=HOP,
            samples={f"{rate}": samples for rate, _, samples in FEATURES},
            waveform="t = i / rate: x[i] = 0.4 sin(2 pi (220 t + 300 t^2)) + 0.2 sin(2 pi 1234.5 t) + 0.05 u_i, f64 then f32; s = 12345; "
            "per sample s = (1664525 s + 1013904223) mod 2^32, u = s / 2^31 - 1",
            stft_frames=STFT_FRAMES,
            largest_difference_of_torchaudio=differences,
        ),
    )


if __name__ == "__main__":
    main()
