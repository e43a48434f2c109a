"""The reference transformer and loss say what the real ones say."""

from __future__ import annotations

import pytest
import torch

from clipkit.models.minimal_vit import VisionTransformer, contrastive_loss, patchify
from tests.support.tiny_vits import random_vit

SIZES = {"image": 32, "side": 8, "width": 32, "depth": 3, "heads": 2, "hidden": 64}


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def network() -> VisionTransformer:
    """With the weights of a random ViT of transformers."""
    ours = VisionTransformer(3, **SIZES)
    ours.load_state_dict(random_vit("vit").state_dict())
    return ours.eval()


@torch.no_grad()
def test_the_reference_answers_as_transformers_does_from_the_same_weights(
    network: VisionTransformer, pixels: torch.Tensor
) -> None:
    theirs = random_vit("vit")(pixel_values=pixels).logits
    assert theirs.std() > 0.1
    torch.testing.assert_close(network(pixels), theirs, rtol=0, atol=1e-5)


def test_its_defaults_are_the_sizes_of_vit_b_16() -> None:
    with torch.device("meta"):
        network = VisionTransformer(37)
    assert sum(parameter.numel() for parameter in network.parameters()) == 85_827_109


@torch.no_grad()
def test_patches_times_a_matrix_are_a_convolution(network: VisionTransformer, pixels: torch.Tensor) -> None:
    embeddings = network.vit.embeddings.patch_embeddings
    torch.testing.assert_close(embeddings.as_linear(pixels), embeddings(pixels), rtol=1e-5, atol=1e-5)


def test_patches_come_row_by_row(pixels: torch.Tensor) -> None:
    patches = patchify(pixels, 8)
    assert patches.shape == (2, 16, 192)
    torch.testing.assert_close(patches[1, 6].reshape(3, 8, 8), pixels[1, :, 8:16, 16:24])


@torch.no_grad()
def test_without_positions_the_class_token_is_blind_to_the_order_of_patches(
    network: VisionTransformer, pixels: torch.Tensor
) -> None:
    shuffled = pixels.clone()
    order = torch.randperm(16, generator=torch.Generator().manual_seed(3))
    for place, source in enumerate(order.tolist()):
        (row, column), (top, left) = divmod(place, 4), divmod(source, 4)
        part = pixels[:, :, 8 * top : 8 * top + 8, 8 * left : 8 * left + 8]
        shuffled[:, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = part
    assert (network(pixels) - network(shuffled)).abs().max() > 0.01  # with positions it sees the difference
    network.vit.embeddings.position_embeddings.zero_()
    torch.testing.assert_close(network(pixels), network(shuffled), rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_the_contrastive_loss_is_open_clips(scale: float) -> None:
    from open_clip import ClipLoss

    rng = torch.Generator().manual_seed(0)
    images, texts = (torch.nn.functional.normalize(torch.randn(7, 16, generator=rng), dim=1) for _ in range(2))
    theirs = ClipLoss()(images, texts, torch.tensor(scale))
    assert contrastive_loss(images, texts, scale).item() == pytest.approx(theirs.item(), abs=1e-6, rel=1e-6)


def test_the_contrastive_loss_of_two_pairs_is_the_one_worked_out_by_hand() -> None:
    pairs = torch.eye(2)
    expected = torch.log(1 + torch.exp(torch.tensor(-3.0)))  # each row: softmax of (3, 0), the first is right
    assert contrastive_loss(pairs, pairs, 3.0).item() == pytest.approx(expected.item(), abs=1e-6)
