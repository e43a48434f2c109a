"""Distils MiniLM-L6 into a small causal open_clip text tower; restartable from work/text_tower.safetensors."""

import argparse
import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import open_clip
import torch
from open_clip.transformer import TextTransformer
from optimizers import muon_and_adamw
from picture_sets import HELD_OUT_TEXTS, WORK
from safetensors.torch import load_file, save_file
from text_teacher import CONTEXT, MiniLM
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.attention import SDPBackend, sdpa_kernel

WIDTH, HEADS, LAYERS, EMBED = 256, 4, 4, 384  # 15.9 M parameters: 32 MB of the 48 in float16
BATCH = 256  # 512 made half as many steps in the same minutes
RELATION = 20.0  # weight of the in-batch similarities: their squared errors are some hundredths of the cosine's
CHECKPOINT = WORK / "text_tower.safetensors"


def text_tower() -> TextTransformer:
    """The tower exactly as open_clip builds it from the packaged config."""
    return TextTransformer(
        context_length=CONTEXT, vocab_size=49408, width=WIDTH, heads=HEADS, layers=LAYERS, output_dim=EMBED
    )


def into_space(embeddings: np.ndarray, space: Mapping[str, np.ndarray]) -> np.ndarray:
    """MiniLM embeddings in the shared space of `shared_space.py`: mean off, turned and stretched, length 1."""
    moved = (embeddings - space["mean"]) @ space["turn"]
    return moved / np.linalg.norm(moved, axis=1, keepdims=True)


def encode(tower: nn.Module, texts: list[str], batch: int = 512) -> np.ndarray:
    """(n, 384) float32, rows of length 1; texts of like length together, so that padding costs little."""
    tokens = open_clip.get_tokenizer("ViT-B-32", context_length=CONTEXT)(texts)
    out = torch.empty(len(tokens), EMBED)
    with torch.inference_mode():
        for rows in tokens.argmax(1).argsort().split(batch):
            out[rows] = F.normalize(cut_encode(tower, tokens[rows]), dim=1)
    return out.numpy()


def cut_encode(tower: TextTransformer, tokens: Tensor) -> Tensor:
    """(n, 384): what the tower makes of tokens (n, 32) without looking at the places behind the longest text."""
    longest = int(tokens.argmax(1).max()) + 1  # end-of-text has the highest id
    x = tower.token_embedding(tokens[:, :longest]) + tower.positional_embedding[:longest]
    mask = tower.attn_mask[:longest, :longest]
    for block in tower.transformer.resblocks:
        x = block(x, attn_mask=mask)
    last = tower.ln_final(x)[torch.arange(len(x)), tokens[:, :longest].argmax(1)]
    return last @ tower.text_projection


def main() -> None:
    """Trains for the given minutes, with a checkpoint and the held-out cosine every 400 steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=float, default=1.2e-3)
    parser.add_argument("--start", type=Path, help="weights to begin from, instead of the MiniLM token table")
    parser.add_argument("--out", type=Path, default=CHECKPOINT)
    options = parser.parse_args()
    torch.manual_seed(0)
    tower = text_tower()
    if options.start:
        tower.load_state_dict(load_file(options.start))
    else:
        _begin_as_a_bag_of_tokens(tower)
    tokens, teacher = _pairs()
    held_tokens, held = tokens[:HELD_OUT_TEXTS], teacher[:HELD_OUT_TEXTS]
    tokens, teacher = tokens[HELD_OUT_TEXTS:], teacher[HELD_OUT_TEXTS:]
    print(len(tokens), "phrases,", sum(p.numel() for p in tower.parameters()), "parameters")
    optimizers = muon_and_adamw(tower, ("transformer",), options.rate, lambda name: "embedding" in name)
    started = time.time()
    for step, rows in enumerate(_batches(tokens)):
        done = (time.time() - started) / 60 / options.minutes
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = _rate(step, done) * options.rate
        loss = _loss(tower, tokens[rows], teacher[rows])
        tower.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        if step in (0, 100) or (step + 1) % 400 == 0 or done >= 1:
            cosine = _cosine(tower, held_tokens, held)
            print(f"step {step + 1} ({done:.0%}) loss {loss.item():.4f} held-out cosine {cosine:.4f}", flush=True)
            save_file({k: v.contiguous() for k, v in tower.state_dict().items() if k != "attn_mask"}, options.out)
        if done >= 1:
            break
    before = options.start and options.start.with_suffix(".json")
    done_before = json.loads(before.read_text()) if before and before.exists() else {"steps": 0, "minutes": 0}
    log = {"steps": step + 1 + done_before["steps"], "minutes": options.minutes + done_before["minutes"]}
    log |= {"held_out_cosine": round(cosine, 4), "phrases": len(tokens)}
    options.out.with_suffix(".json").write_text(json.dumps(log))


def _rate(step: int, done: float) -> float:
    """Warm-up over 100 steps, then a cosine down to a hundredth over the minutes."""
    return min(1.0, (step + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


def _loss(tower: nn.Module, tokens: Tensor, teacher: Tensor) -> Tensor:
    # the fused attention's backward pass is several times slower than plain products on short rows
    with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        out = cut_encode(tower, tokens.long())
    own, goal = F.normalize(out.float(), dim=1), teacher.float()
    relation = ((own @ own.T - goal @ goal.T) ** 2).mean()
    return (1 - (own * goal).sum(1)).mean() + RELATION * relation + 0.02 * (out.float().norm(dim=1) - 1).square().mean()


def _batches(tokens: Tensor) -> Iterator[np.ndarray]:
    lengths = tokens.argmax(1).numpy()
    chance = np.random.default_rng(0)
    while True:
        order = chance.permutation(len(tokens))
        pools = [order[i : i + BATCH * 16] for i in range(0, len(order) - BATCH * 16 + 1, BATCH * 16)]
        for pool in pools:
            pool = pool[np.argsort(lengths[pool] + chance.random(len(pool)) * 3)]  # like lengths together: less padding
            yield from chance.permutation(pool.reshape(-1, BATCH))


def _cosine(tower: TextTransformer, tokens: Tensor, teacher: Tensor) -> float:
    tower.eval()
    with torch.inference_mode():
        parts = [F.normalize(tower(part.long()), dim=1) for part in tokens.split(500)]
    tower.train()
    return float((torch.cat(parts) * teacher.float()).sum(1).mean())


def _pairs() -> tuple[Tensor, Tensor]:
    teachers = sorted((WORK / "texts").glob("teacher_*.npy"))
    tokens = [np.load(str(path).replace("teacher_", "tokens_")).astype(np.int32) for path in teachers]
    space = np.load(WORK / "space.npz")
    goals = [into_space(np.load(path).astype(np.float32), space).astype(np.float16) for path in teachers]
    return torch.from_numpy(np.concatenate(tokens)), torch.from_numpy(np.concatenate(goals))


@torch.no_grad()
def _begin_as_a_bag_of_tokens(tower: TextTransformer) -> None:
    """Sets the start so that the output is about the mean of what MiniLM makes of each token alone.

    The token table holds those embeddings along 256 principal directions, the first layer's attention passes on their
    mean, and the projection turns them back; everything else begins small.
    """
    table, directions = _token_table()
    tower.token_embedding.weight.copy_(torch.from_numpy(table / table.std()))
    tower.positional_embedding.mul_(0.1)
    for block in tower.transformer.resblocks:
        block.attn.out_proj.weight.mul_(0.3)
        block.mlp.c_proj.weight.mul_(0.3)
    first = tower.transformer.resblocks[0].attn
    first.in_proj_weight[: 2 * WIDTH].mul_(0.3)
    first.in_proj_weight[2 * WIDTH :].copy_(torch.eye(WIDTH))
    first.out_proj.weight.copy_(2 * torch.eye(WIDTH))
    tower.text_projection.copy_(torch.from_numpy(directions.T) / WIDTH**0.5)


def _token_table() -> tuple[np.ndarray, np.ndarray]:
    """(49408, 256) and the directions (384, 256): each token's letters, embedded by MiniLM, in the shared space."""
    cached = WORK / "token_table.npz"
    if not cached.exists():
        tokenizer = open_clip.get_tokenizer("ViT-B-32")
        letters = [tokenizer.decode([i]).strip() or "." for i in range(tokenizer.vocab_size)]
        embedded = into_space(MiniLM().encode(letters), np.load(WORK / "space.npz"))
        directions = np.linalg.eigh(embedded.T @ embedded)[1][:, ::-1][:, :WIDTH]
        table = embedded @ directions
        table[-2:] = 0  # start and end of text
        np.savez(cached, table=table.astype(np.float32), directions=directions.astype(np.float32))
    stored = np.load(cached)
    return stored["table"], stored["directions"]


if __name__ == "__main__":
    main()
