"""Support vector regression."""

import math
from collections.abc import Sequence

import torch
from sklearn.svm import SVR
from torch import Tensor, nn
from torchvision.transforms.v2.functional import gaussian_blur

from pixel_spotter.arguments import require
from pixel_spotter.coordinates import Columns, Size, as_columns, as_xy, to_px, to_unit
from pixel_spotter.data.base import PointData
from pixel_spotter.errors import UserError
from pixel_spotter.models.solved import SolvedRegressor


class SVMRegressor(SolvedRegressor):
    """Two support vector machines, one for x and one for y, on the pixels.

    Solved by scikit-learn (Chang and Lin 2011, LIBSVM) on an epoch's samples when the Trainer
    starts; then held as tensors. Clean images with the pixel in different places are all equally
    far apart, so that an RBF kernel can tell which it has seen, and nothing about the others.
    Blurred first, neighbours are close.

    Args:
        image_size: side of the square image, or [height, width], px.
        kernel: ``rbf`` or ``linear``, both with scikit-learn's ``gamma="scale"``: also the linear
            one, so that ``cost`` means the same to both.
        blur_px: standard deviation of the Gaussian that blurs the image first; 0 does not.
        cost: penalty C on errors beyond ``tolerance_px``, in unit coordinates.
        tolerance_px: errors that cost nothing.
        memory_gib: what solving may take.
    """

    head: "KernelHead"

    def __init__(
        self,
        image_size: int | Sequence[int],
        kernel: str = "rbf",
        blur_px: float = 4.0,
        cost: float = 100.0,
        tolerance_px: float = 0.1,
        memory_gib: float = 4.0,
    ) -> None:
        super().__init__(image_size)
        self.save_hyperparameters(logger=False)
        require(kernel in ("rbf", "linear"), "model.kernel", "rbf or linear", kernel)
        largest = (min(self.size) - 1) / 3
        fits = blur_px >= 0 and math.ceil(3 * blur_px) < min(self.size)
        require(fits, "model.blur_px", f"at least 0, and here at most {largest:.3g}", blur_px)
        require(cost > 0, "model.cost", "more than 0", cost)
        require(tolerance_px >= 0, "model.tolerance_px", "at least 0", tolerance_px)
        self.cost, self.tolerance_px, self.memory_gib = cost, tolerance_px, memory_gib
        self.features = nn.Sequential(Blur(blur_px), nn.Flatten())
        self.head = KernelHead(self.size, kernel)

    def solve(self, data: PointData) -> None:
        """Solve both machines on the first epoch's samples."""
        samples, pixels = data.train_samples, self.size[0] * self.size[1]
        # In float64, at the same time: the kernel of all pairs, what it is made from, and LIBSVM's
        # copy; of the images, the copies on the way there (measured: 40 to 75 bytes a pixel).
        gib = (4 * 8 * samples**2 + 75 * samples * pixels) / 2**30
        if gib > self.memory_gib:
            raise UserError(
                f"an SVM on {samples} samples takes {gib:.1f} GiB to solve, more than "
                f"model.memory_gib={self.memory_gib:g}: choose fewer data.train_samples"
            )
        batch = data.batch("train", 0, torch.arange(samples, device=self.device))
        vectors, xy_px = self.encode(batch.image), as_xy(batch.truth, "_true")
        variance = vectors.double().var(unbiased=False)
        self.head.gamma.data = (1 / (vectors.shape[1] * variance)).to(vectors)  # gamma="scale"
        kernel = self.head.kernel(vectors.double(), vectors.double()).cpu().numpy()
        coefficients = torch.zeros(samples, 2)
        targets = to_unit(xy_px, self.size).T.cpu().numpy()
        for axis, side in enumerate(reversed(self.size)):
            machine = SVR(kernel="precomputed", C=self.cost, epsilon=2 * self.tolerance_px / side)
            machine.fit(kernel, targets[axis])
            coefficients[machine.support_, axis] = torch.from_numpy(machine.dual_coef_[0]).float()
            self.head.bias[axis] = float(machine.intercept_[0])
        support = coefficients.any(dim=1).to(vectors.device)
        self.head.vectors.data = vectors[support]
        self.head.coefficients.data = coefficients.to(vectors)[support]


class Blur(nn.Module):
    """Blurs images (B, 1, H, W) with a Gaussian, mirrored at the edges; 0 px is none."""

    def __init__(self, sigma_px: float) -> None:
        super().__init__()
        self.sigma_px = sigma_px

    def forward(self, image: Tensor) -> Tensor:
        if self.sigma_px == 0:
            return image
        side = 2 * math.ceil(3 * self.sigma_px) + 1
        blurred: Tensor = gaussian_blur(image, [side, side], [self.sigma_px, self.sigma_px])
        return blurred


class KernelHead(nn.Module):
    """Weighs kernels between features (B, D) and support vectors (M, D) to ``x`` and ``y``.

    They are ``rbf``, exp(-gamma |a - b|²), or ``linear``, gamma a.b.
    """

    def __init__(self, size: Size, name: str) -> None:
        super().__init__()
        self.size, self.name = size, name
        self.vectors = nn.Parameter(torch.zeros(0, size[0] * size[1]))
        self.coefficients = nn.Parameter(torch.zeros(0, 2))
        self.bias = nn.Parameter(torch.zeros(2))
        self.gamma = nn.Parameter(torch.ones(()))
        self.requires_grad_(False)  # they are solved
        self.register_load_state_dict_pre_hook(_make_room)  # type: ignore[no-untyped-call]

    def kernel(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the kernel of all pairs: (N, D), (M, D) -> (N, M)."""
        if self.name == "linear":
            return self.gamma * (a @ b.T)
        squared = a.square().sum(1, keepdim=True) + b.square().sum(1) - 2 * a @ b.T
        return (-self.gamma * squared.clamp(min=0)).exp()

    def forward(self, features: Tensor) -> Columns:
        # Large coefficients of both signs cancel: float32 would lose what is left.
        kernel = self.kernel(features.double(), self.vectors.double())
        unit = kernel @ self.coefficients.double() + self.bias.double()
        return as_columns(to_px(unit, self.size).float())


def _make_room(head: KernelHead, state_dict: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Take as many support vectors as a checkpoint brings."""
    for name in ("vectors", "coefficients"):
        if isinstance(saved := state_dict.get(prefix + name), Tensor):
            getattr(head, name).data = head.bias.new_empty(saved.shape)
