#!/usr/bin/env bash
# Check and measure on a GPU: the tests that need one, the benchmark of both models, and a short training run in float32
# and in bfloat16. Ends with one summary to paste into docs/performance.md. Times are those of the first GPU.
#
#   scripts/gpu_check.sh [FOLDER]     FOLDER (outputs/gpu_check) gets the logs, benchmarks, runs and summary.md
#
# Environment variables, with defaults in parentheses:
#   PYTHON  interpreter (.venv/bin/python if there is one, else python)
#   STEPS   optimiser steps of each training run (300)
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [[ -z ${PYTHON:-} ]]; then
    PYTHON=python
    [[ -x $ROOT/.venv/bin/python ]] && PYTHON=$ROOT/.venv/bin/python
fi
STEPS=${STEPS:-300}
OUT=$(realpath -m "${1:-$ROOT/outputs/gpu_check}")
cd "$ROOT"

if ! "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "gpu_check: torch sees no CUDA device on this machine; nothing was run" >&2
    exit 1
fi
mkdir -p "$OUT"
failed=0

# logged NAME COMMAND…: run it, show and keep its output; a failure does not stop the other parts.
logged() {
    local name=$1
    shift
    echo "== $name"
    if ! "$@" 2>&1 | tee "$OUT/$name.log"; then
        failed=1
        echo "FAILED" >>"$OUT/$name.log"
    fi
}

# training NAME KEY…: STEPS steps on the mosaics; the log ends with the seconds that the command took.
training() {
    local name=$1
    shift
    rm -rf "${OUT:?}/$name"
    SECONDS=0
    "$PYTHON" src_EAGLE/train_segmentation_eigen.py --config-name train_config_directory \
        dir_dataset_name=mosaics pytorch_data_dir="$OUT/data" pretrained_weights=random batch_size=32 max_steps="$STEPS" val_freq="$STEPS" \
        checkpoint_freq="$STEPS" scalar_log_freq=10 n_images=0 accelerator=gpu devices=1 output_root="$OUT" \
        experiment_name="$name" "$@" && echo "$STEPS steps and start in $SECONDS s"
}

logged tests "$PYTHON" -m pytest -q -m gpu tests
for model in vit_small vit_base; do
    logged "benchmark_$model" "$PYTHON" scripts/benchmark.py device=cuda model_type="$model" out="$OUT/$model"
done
logged mosaics "$PYTHON" scripts/make_mosaics.py output_dir="$OUT/data/mosaics"
logged training_float32 training run_float32
logged training_bf16 training run_bf16 precision=bf16-mixed

{
    "$PYTHON" -c 'import torch; print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")'
    for name in tests training_float32 training_bf16; do
        echo "- $name: $(tail -n 1 "$OUT/$name.log")"
    done
    for model in vit_small vit_base; do
        echo
        if [[ $(tail -n 1 "$OUT/benchmark_$model.log") == FAILED ]]; then
            echo "- benchmark_$model: FAILED"
        else
            cat "$OUT/$model/benchmark.md"
        fi
    done
} 2>&1 | tee "$OUT/summary.md"
exit "$failed"
