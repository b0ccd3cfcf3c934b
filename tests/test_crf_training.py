"""The dense CRF as a layer: its gradient, and training through it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from hubmodels.refine.crf import DenseCRF
from hubmodels.refine.photo_kernels import PhotoKernels
from tests.crf_scene import LITERAL, scene


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_gradient_path_computes_the_same(backend: str) -> None:
    logits, image = scene(classes=7)
    crf = DenseCRF(4, backend=backend)
    with_graph = crf(logits, image)
    assert with_graph.requires_grad
    with torch.inference_mode():
        torch.testing.assert_close(crf(logits, image), with_graph.detach(), rtol=1e-5, atol=1e-4)  # logits of about 20


def test_gradcheck() -> None:
    logits, image = scene(5, 4)
    crf = DenseCRF(
        2, appearance_weight=1.5, smoothness_weight=0.7, appearance_sigma_px=3, smoothness_sigma_px=1,
        num_classes=3, **LITERAL,
    ).double()  # fmt: skip

    def refined(x: Tensor, appearance: Tensor, smoothness: Tensor, compatibility: Tensor) -> Tensor:
        new = {"appearance_weight": appearance, "smoothness_weight": smoothness, "compatibility": compatibility}
        return torch.func.functional_call(crf, new, (x, image))

    parameters = [each.detach().clone().requires_grad_() for each in crf.parameters()]
    order = [name for name, _ in crf.named_parameters()]
    assert order == ["appearance_weight", "smoothness_weight", "compatibility"]
    assert torch.autograd.gradcheck(refined, (logits.double().requires_grad_(), *parameters))


def test_gradcheck_of_the_weights_with_potts() -> None:
    """In float64, in which its steps are: weights that are rounded to float32 would not move."""
    logits, image = scene(5, 4)
    crf = DenseCRF(2, appearance_sigma_px=3, smoothness_sigma_px=1, **LITERAL).double()

    def refined(appearance: Tensor, smoothness: Tensor) -> Tensor:
        new = {"appearance_weight": appearance, "smoothness_weight": smoothness}
        return torch.func.functional_call(crf, new, (logits.double(), image))

    weights = [torch.tensor(each, dtype=torch.float64, requires_grad=True) for each in (1.5, 0.7)]
    assert torch.autograd.gradcheck(refined, weights)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")  # PyTorch, of itself
@pytest.mark.parametrize("frozen", [True, False])
def test_forward_mode_gradient_is_that_of_backward_mode(frozen: bool) -> None:
    logits, image = scene(20, 16)
    crf = DenseCRF(3).requires_grad_(not frozen)
    tangent, weights = torch.randn_like(logits), torch.randn_like(logits)
    with forward_ad.dual_level(), torch.no_grad():
        found = forward_ad.unpack_dual(crf(forward_ad.make_dual(logits, tangent), image)).tangent
    leaf = logits.clone().requires_grad_()
    (crf(leaf, image) * weights).sum().backward()
    torch.testing.assert_close((found * weights).sum(), (leaf.grad * tangent).sum(), rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("frozen", [True, False])
def test_tracing_is_refused(frozen: bool) -> None:
    with pytest.raises(RuntimeError, match="cannot be traced"):
        torch.jit.trace(DenseCRF(3).requires_grad_(not frozen), scene(20, 16))


class Photos(Dataset):
    """A data set that prepares a photo for a CRF, in the processes of a loader."""

    def __init__(self, crf: DenseCRF, image: Tensor) -> None:
        self.crf, self.image = crf, image

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> PhotoKernels:
        return self.crf.photo(self.image)


def test_photos_may_be_prepared_in_the_processes_of_a_loader() -> None:
    logits, image = scene(90, 80)
    crf = DenseCRF(3).requires_grad_(False)
    expected = crf(logits, image)
    loader = DataLoader(Photos(crf, image[0]), num_workers=1, collate_fn=list, multiprocessing_context="spawn")
    for photos in loader:
        assert torch.equal(crf(logits, photos), expected)


def test_trains_after_a_network() -> None:
    torch.manual_seed(0)
    logits, image = scene(20, 16)
    target = logits.argmax(1)
    network = nn.Conv2d(3, 3, 3, padding=1)
    crf = DenseCRF(3, appearance_weight=1.0, smoothness_weight=1.0, num_classes=3, **LITERAL)
    before = copy.deepcopy([*crf.parameters(), *network.parameters()])
    optimiser = torch.optim.Adam([*crf.parameters(), *network.parameters()], lr=0.05)
    losses = []
    for _ in range(12):
        optimiser.zero_grad()
        loss = F.cross_entropy(crf(network(image / 255.0), image), target)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    for old, new in zip(before, [*crf.parameters(), *network.parameters()], strict=True):
        assert (new - old).abs().max() > 1e-3  # twelve steps of 0.05 move every parameter that has a gradient


def test_gradient_survives_the_reduced_size() -> None:
    logits, image = scene(40, 30)
    logits.requires_grad_()
    DenseCRF(2, max_pixels=300, **LITERAL)(logits, image).square().sum().backward()
    assert logits.grad is not None and logits.grad.isfinite().all()


def test_autocast_does_not_reach_the_messages() -> None:
    logits, image = scene()
    crf = DenseCRF(3, num_classes=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = crf(logits, image)
    assert torch.equal(inside, crf(logits, image))


def test_state_round_trip() -> None:
    crf = DenseCRF(3, num_classes=3, appearance_weight=4)
    with torch.no_grad():
        crf.compatibility[0, 1] = 0.5
    other = DenseCRF(3, num_classes=3)
    other.load_state_dict(copy.deepcopy(crf).state_dict())
    logits, image = scene()
    assert torch.equal(other(logits, image), crf(logits, image))
