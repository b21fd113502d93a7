"""A camera: from expected photons to counts, and back as far as there is a way back."""

import math

import torch
from torch import Generator, Tensor

from pixel_spotter.simulation import noise
from pixel_spotter.simulation.bound import pixel_information
from pixel_spotter.simulation.maps import read_map


class Camera:
    """Shot noise, electron multiplication, read noise, gain, offset, saturation.

    Args:
        read_noise: standard deviation, electrons: a number, a ``.npy`` map (H, W), or
            the map itself.
        gain: electrons per count, after the multiplication.
        offset: counts of no light.
        em_gain: of an electron-multiplying register; 1 has none.
        bits: counts are whole numbers below 2 to this power, saturated there; null rounds nothing.
        hot_pixels: fraction of pixels that give light of their own.
        hot_photons: how much of it on average, photons.

    Raises:
        ValueError: if an argument is out of its range, or the map cannot be used.
    """

    def __init__(
        self,
        read_noise: float | str | Tensor = 0.0,
        gain: float = 1.0,
        offset: float = 0.0,
        em_gain: float = 1.0,
        bits: int | None = None,
        hot_pixels: float = 0.0,
        hot_photons: float = 100.0,
    ) -> None:
        for name, value, least in (("em_gain", em_gain, 1), ("hot_photons", hot_photons, 0)):
            if not least <= value < math.inf:
                raise ValueError(f"camera.{name} must be at least {least}, got {value}")
        if not 0 < gain < math.inf:
            raise ValueError(f"camera.gain must be more than 0 electrons per count, got {gain}")
        if not math.isfinite(offset):
            raise ValueError(f"camera.offset must be a number of counts, got {offset}")
        if not 0 <= hot_pixels <= 1:
            raise ValueError(f"camera.hot_pixels must lie between 0 and 1, got {hot_pixels}")
        if bits is not None and (type(bits) is not int or not 1 <= bits <= 32):
            raise ValueError(f"camera.bits must be a whole number from 1 to 32, got {bits}")
        if bits is not None and not 0 <= offset < 2**bits:
            raise ValueError(f"camera.offset={offset} is no count of {bits} bits")
        self.read_noise = (
            read_noise
            if isinstance(read_noise, float | int)
            else read_map(read_noise, "camera.read_noise")
        )
        if isinstance(read_noise, float | int) and not 0 <= read_noise < math.inf:
            raise ValueError(f"camera.read_noise must be at least 0 electrons, got {read_noise}")
        self.gain, self.offset, self.em_gain, self.bits = gain, offset, em_gain, bits
        self.hot_pixels, self.hot_photons = hot_pixels, hot_photons

    @property
    def excess_noise(self) -> float:
        """Return the variance of light over its mean: electron multiplication doubles it."""
        return 2.0 if self.em_gain > 1 else 1.0

    @property
    def saturation(self) -> float:
        """Return what a pixel holds at most, photons."""
        if self.bits is None:
            return math.inf
        return float(2**self.bits - 1 - self.offset) * (self.gain / self.em_gain)

    def expose(
        self, expected: Tensor, generator: Generator, read_noise: Tensor | None = None
    ) -> Tensor:
        """Record images.

        Args:
            expected: photons, (B, H, W).
            generator: where the noise comes from.
            read_noise: electrons, if it is not the camera's own; broadcasts with the images.

        Returns:
            Counts (B, H, W).
        """
        if self.hot_pixels:
            expected = noise.hot_pixels(expected, self.hot_pixels, self.hot_photons, generator)
        electrons = noise.shot_noise(expected, generator)
        if self.em_gain > 1:
            electrons = noise.multiplication(electrons, self.em_gain, generator)
        deviation = self.read_noise if read_noise is None else read_noise
        if torch.as_tensor(deviation).any():
            deviation = torch.as_tensor(deviation, dtype=expected.dtype, device=expected.device)
            electrons = noise.read_noise(electrons, deviation, generator)
        return noise.digitize(electrons, self.gain, self.offset, self.bits)

    def to_photons(self, counts: Tensor) -> Tensor:
        """Undo what can be undone: offset and gains. Noise, rounding and saturation stay."""
        return (counts - self.offset) * (self.gain / self.em_gain)

    def variance(self, expected: Tensor, read_noise: Tensor | None = None) -> Tensor:
        """Return the variance of `to_photons`' values, photons², where so many are expected."""
        return self.excess_noise * expected + self._added_noise(expected, read_noise).square()

    def information(self, expected: Tensor, read_noise: Tensor | None = None) -> Tensor:
        """Return each pixel's Fisher information about its expected photons, 1 / photons².

        Exact for shot and read noise; with electron multiplication, 1 / variance. Hot pixels and
        saturation are left out; rounding counts as noise of its variance.
        """
        if self.em_gain > 1:
            return 1 / self.variance(expected, read_noise)
        return pixel_information(expected, self._added_noise(expected, read_noise))

    def _added_noise(self, like: Tensor, read_noise: Tensor | None) -> Tensor:
        """Return the standard deviation of what does not depend on the light, photons."""
        deviation = self.read_noise if read_noise is None else read_noise
        rounding = 0 if self.bits is None else self.gain / math.sqrt(12)
        electrons = torch.as_tensor(deviation, dtype=like.dtype, device=like.device)
        return torch.hypot(electrons, torch.full_like(electrons, rounding)) / self.em_gain
