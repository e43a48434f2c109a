#!/bin/sh
# The starter from its teachers and the photographs, in work/candidate; what exists in work/ is not made again.
set -eu
cd "$(dirname "$0")"
: "${CLIPKIT_TEST_DATA:?the folder of photographs}"
python=${PYTHON:-python}
export OMP_WAIT_POLICY=PASSIVE MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=20000000000

if [ ! -e work/distilled/open_clip_model.safetensors ]; then # the towers that know MiniLM's words and 795 captioned photographs
    "$python" text_teacher.py
    "$python" features.py --sets captioned imagenet --views plain
    "$python" features.py --size 288 --sets captioned imagenet
    "$python" packed_pictures.py
    "$python" shared_space.py
    [ -e work/text_tower.json ] || "$python" train_text_tower.py --minutes 96
    "$python" feature_maps.py
    "$python" train_projection.py
    "$python" tune_last_convolution.py
    "$python" package.py --out work/distilled
fi
"$python" feature_maps.py --resize squash --sets captioned flickr8k visual7w imagenet validation pets_trainval
"$python" feature_maps.py --resize squash --views flip --sets captioned flickr8k visual7w
"$python" tune_contrastive.py --name head
"$python" package_tuned.py --names head --out work/candidate_head
"$python" tune_contrastive.py --name stage --start work/candidate_head --stage-rate 3e-4 --image-rate 5e-4 --text-rate 1e-4 \
    --distilling 0 --epochs 6
"$python" tune_contrastive.py --name mirrored --stage-rate 3e-4 --epochs 14 --views "plain flip"
"$python" package_tuned.py --names stage mirrored --out work/captioned # their mean
mentions="--start work/captioned --stage-rate 3e-4 --image-rate 5e-4 --text-rate 1.5e-4 --distilling 0 --anchoring .5"
"$python" tune_contrastive.py --name nouns $mentions --views "plain flip" --mentioning 1.5 --queries 160 --epochs 7
"$python" tune_contrastive.py --name nouns_two $mentions --views "plain flip" --mentioning 2 --queries 128 --epochs 8 --captions 2 --seed 2
"$python" package_tuned.py --goal mentions --start work/captioned --names nouns nouns_two --image-share .9 --text-share .9 # work/candidate
"$python" evaluate.py --folder work/candidate
echo "to ship it: $python install_starter.py, $python export_onnx.py, then make bench-quality"
