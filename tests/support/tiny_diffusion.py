"""Tiny Stable Diffusion pipelines made of configs: one with random weights, one whose weights are set by hand to paint.

The painter's every part is a real one of diffusers and transformers, with nearly all weights zero. Its text encoder
gives the token of a colour that colour's signs and a flag; one cross-attention of its UNet looks at flags, and takes
the signs; its VAE decodes signs as full colours. So the word decides the colour, and a seed leaves a little noise.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from tests.support.colours import COLOURS

SIDE = 32  # pixels of a picture
STEPS = 3
SIGNS, NEGATED, FLAG = 0, 3, 6  # dimensions of a token: signs of red, green and blue, the same negated, a colour's flag
SHARPNESS = 100.0  # of the attention to what has a flag


def make_pipeline(folder: Path, kind: str = "painter") -> Path:
    """Saved as diffusers saves it, 12 MB. kind: painter, random, or guarded: a painter whose checker refuses all."""
    import torch
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    torch.manual_seed(0)
    parts = {"unet": _unet(), "vae": _vae(), "tokenizer": _tokenizer(folder / "words"), "text_encoder": _text_encoder()}
    is_painter = kind != "random"
    if is_painter:
        with torch.no_grad():
            _teach_words(parts["text_encoder"], parts["tokenizer"])
            _teach_attention(parts["unet"])
            _teach_decoder(parts["vae"])
    schedule = {
        "beta_start": 0.02,
        "beta_end": 0.05,
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
    }
    scheduler = DDIMScheduler(**schedule, prediction_type="sample" if is_painter else "epsilon")
    checker = {"safety_checker": None, "feature_extractor": None} if kind != "guarded" else _checker()
    pipeline = StableDiffusionPipeline(
        **parts, **checker, scheduler=scheduler, requires_safety_checker=kind == "guarded"
    )
    pipeline.save_pretrained(folder / "pipeline")
    return folder / "pipeline"


def _unet() -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        block_out_channels=(32, 32),
        layers_per_block=1,
        sample_size=SIDE // 2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        norm_num_groups=8,
        attention_head_dim=4,
    )


def _vae() -> Any:
    from diffusers import AutoencoderKL

    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    return AutoencoderKL(block_out_channels=[16, 16], latent_channels=4, norm_num_groups=8, sample_size=SIDE, **blocks)


def _text_encoder() -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    tower = {"hidden_size": 32, "intermediate_size": 37, "num_attention_heads": 4, "num_hidden_layers": 2}
    tokens = {"vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407}
    return CLIPTextModel(CLIPTextConfig(**tower, **tokens, projection_dim=32)).eval()


def _checker() -> dict[str, Any]:
    """Of random weights, with thresholds below every cosine."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    tower = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = CLIPConfig(
        vision_config={**tower, "image_size": 32, "patch_size": 16}, text_config=tower, projection_dim=16
    )
    checker = StableDiffusionSafetyChecker(config)
    checker.concept_embeds_weights.data.fill_(-2)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    return {"safety_checker": checker, "feature_extractor": CLIPImageProcessor(**size)}


def _tokenizer(folder: Path) -> Any:
    """CLIP's own, from the vocabulary that open_clip brings."""
    import open_clip
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPTokenizer

    folder.mkdir(parents=True)
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {names.get(word, word): i for word, i in SimpleTokenizer().encoder.items()}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    packed = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    merges = gzip.decompress(packed.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges))
    return CLIPTokenizer.from_pretrained(str(folder), model_max_length=77)


def _zero(module: Any) -> None:
    for parameter in module.parameters():
        parameter.zero_()


def _teach_words(text_encoder: Any, tokenizer: Any) -> None:
    import torch

    _zero(text_encoder)
    tower = getattr(text_encoder, "text_model", text_encoder)
    tower.final_layer_norm.weight.fill_(1)
    for word, colour in COLOURS.items():
        token = tokenizer(word, add_special_tokens=False).input_ids[-1]  # magenta has two
        signs = torch.tensor([value / 127.5 - 1 for value in colour]).round()  # grey: 0
        row = tower.embeddings.token_embedding.weight[token]
        row[SIGNS : SIGNS + 3], row[NEGATED : NEGATED + 3] = signs, -signs
        row[FLAG], row[FLAG + 1] = 1, -1


def _teach_attention(unet: Any) -> None:
    import torch

    _zero(unet)
    last = unet.up_blocks[-1].attentions[-1]
    block = last.transformer_blocks[0]
    block.norm2.bias[0] = 1  # what every place asks with
    width = block.attn2.to_q.weight.shape[0] // block.attn2.heads
    for head in range(block.attn2.heads):
        block.attn2.to_q.weight[head * width, 0] = SHARPNESS
        block.attn2.to_k.weight[head * width, FLAG] = 1
    for colour in range(3):
        block.attn2.to_v.weight[colour, SIGNS + colour] = 1
        block.attn2.to_out[0].weight[4 * colour, colour] = 1  # each colour has a group of the last norm to itself
        block.attn2.to_out[0].weight[4 * colour + 1, colour] = -1
    last.proj_out.weight.copy_(torch.eye(32).view_as(last.proj_out.weight))
    unet.conv_norm_out.weight.fill_(1)
    _join_pairs(unet.conv_out, 4)


def _teach_decoder(vae: Any) -> None:
    import torch

    _zero(vae)
    decoder = vae.decoder
    vae.post_quant_conv.weight.copy_(torch.eye(4).view(4, 4, 1, 1))
    for colour in range(3):
        decoder.conv_in.weight[2 * colour, colour, 1, 1] = 1
        decoder.conv_in.weight[2 * colour + 1, colour, 1, 1] = -1
    for block in decoder.up_blocks:
        for upsampler in block.upsamplers or ():
            upsampler.conv.weight[:, :, 1, 1] = torch.eye(16)
    decoder.conv_norm_out.weight.fill_(1)
    _join_pairs(decoder.conv_out, 2)


def _join_pairs(convolution: Any, apart: int) -> None:
    """From x and -x, which SiLU has gone over, x again: silu(x) - silu(-x) = x."""
    for colour in range(3):
        convolution.weight[colour, apart * colour, 1, 1] = 1
        convolution.weight[colour, apart * colour + 1, 1, 1] = -1
