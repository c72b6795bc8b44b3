"""A made sound and the real one -> how far apart they are, as spectrograms; whole batches on the device that trains."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from librosa.filters import mel as mel_basis
from torch import Tensor, nn

from cosytune.families.family import Mel

_TINY_POWER = 1e-9
_QUIETEST_MEL = 1e-5
"""Both of Matcha's formula: what is added to a power, and where the logarithm begins."""
_QUIETEST = 1e-3
"""Where the logarithm of the finer spectrograms begins: about 6 dB below the quietest noise of the corpus."""
_FFT_SIZES = (2048, 1024, 512, 128)


class LogMel(nn.Module):
    """float32 [rows, samples], -1 to 1 -> float32 [rows, bins, samples // hop], as `bridge.mel_extractor` makes it.

    A module because that one takes one clip at a time, and looks at every clip from the CPU.
    """

    basis: Tensor
    window: Tensor

    def __init__(self, mel: Mel) -> None:
        super().__init__()
        self._size, self._hop = mel.n_fft, mel.hop_size
        basis = mel_basis(sr=mel.sampling_rate, n_fft=mel.n_fft, n_mels=mel.num_mels, fmin=mel.fmin, fmax=mel.fmax)
        self.register_buffer("basis", torch.from_numpy(np.asarray(basis, dtype=np.float32)))
        self.register_buffer("window", torch.hann_window(mel.win_size))

    def forward(self, sound: Tensor) -> Tensor:
        edge = (self._size - self._hop) // 2
        padded = F.pad(sound.unsqueeze(1), (edge, edge), mode="reflect").squeeze(1)
        spectrum = torch.stft(padded, self._size, self._hop, window=self.window, center=False, return_complex=True)
        magnitude = (torch.view_as_real(spectrum).pow(2).sum(dim=-1) + _TINY_POWER).sqrt()
        found: Tensor = (self.basis @ magnitude).clamp(min=_QUIETEST_MEL).log()
        return found


class Spectra(nn.Module):
    """made, real: float32 [rows, samples] -> (spectral convergence, L1 of log-magnitudes), means over several sizes."""

    def __init__(self) -> None:
        super().__init__()
        for size in _FFT_SIZES:
            self.register_buffer(f"window_{size}", torch.hann_window(size))

    def forward(self, made: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        convergence, logarithms = [], []
        for size in _FFT_SIZES:
            ours, theirs = self._magnitude(made, size), self._magnitude(real, size)
            apart = (ours - theirs).flatten(1).norm(dim=1) / theirs.flatten(1).norm(dim=1).clamp(min=1.0)
            convergence.append(apart.mean())
            logarithms.append(F.l1_loss(_log(ours), _log(theirs)))
        return torch.stack(convergence).mean(), torch.stack(logarithms).mean()

    def _magnitude(self, sound: Tensor, size: int) -> Tensor:
        window = getattr(self, f"window_{size}")
        spectrum = torch.stft(sound, size, size // 4, window=window, return_complex=True)
        return (torch.view_as_real(spectrum).pow(2).sum(dim=-1) + _TINY_POWER).sqrt()


def _log(magnitude: Tensor) -> Tensor:
    return magnitude.clamp(min=_QUIETEST).log()
