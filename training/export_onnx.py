"""The starter's ONNX graphs: written beside its weights, which they read, and compared with them in torch."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from clipkit.core.files import sync_file
from clipkit.models.exports import IMAGE, MERGES, TEXT, VOCABULARY
from clipkit.models.hub import fingerprint
from clipkit.models.onnx_export import export_encoder, share_weights
from clipkit.models.openclip import load_network, open_clip_catalogue, pixel_recipe
from clipkit.models.registry import find_weights, starter_folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=starter_folder(), help="of the model; by default the starter's")
    folder = parser.parse_args().folder
    found = find_weights(str(folder), open_clip_catalogue())
    weights = replace(found, model="starter", source="starter")
    network, tokenizer = load_network(weights)
    recipe = pixel_recipe("starter", network, exact=False)
    export = export_encoder(network, tokenizer, weights, recipe, folder, finish=sync_file)  # weights stay as they are
    if not {IMAGE, TEXT} <= set(export.graphs):
        raise SystemExit(f"only {', '.join(export.graphs) or 'nothing'} could be exported")
    for name in (IMAGE, TEXT):
        share_weights(folder / name, weights.file)
    files = (IMAGE, TEXT, VOCABULARY, MERGES)
    replace(export, graphs={name: fingerprint(folder / name) for name in files}).save()
    for name in (*files, "export.json"):
        print(f"{folder / name}: {(folder / name).stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
