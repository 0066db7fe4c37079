# Sourced by reproduce_*.sh: download, crop, train, evaluate. A repeated command skips finished downloads and crops,
# and resumes training.
#
# The scripts' arguments are training keys (key=value). Environment variables, with defaults in parentheses:
#   DATA_DIR    folder of the datasets          (datasets in the repository)
#   OUTPUT_DIR  folder of the runs              (outputs in the repository)
#   WEIGHTS     backbone file, or random        (the public DINO weights, fetched into models)
#   EVAL_ARGS   further keys of the evaluation, e.g. "num_workers=0 run_crf=false"
#   PYTHON      interpreter                     (python)

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHON=${PYTHON:-python}

# reproduce CONFIG ARCHIVE BACKBONE CROPPED TRAINING_KEY…: CROPPED is the dataset to crop; empty crops none.
reproduce() {
    local config=$1 archive=$2 backbone=$3 cropped=$4 weights=() weights_file data_dir run
    shift 4
    data_dir=$(realpath -m "${DATA_DIR:-$ROOT/datasets}")
    run=$(realpath -m "${OUTPUT_DIR:-$ROOT/outputs}")/reproduce_$archive
    # A path is relative to the caller's folder; the value random is no path.
    weights_file=${WEIGHTS:-}
    if [[ -e $weights_file ]]; then
        weights_file=$(realpath "$weights_file")
    elif [[ -n $weights_file && $weights_file != random ]]; then
        echo "reproduce: WEIGHTS: no $weights_file" >&2
        exit 1
    fi
    cd "$ROOT/src_EAGLE"

    if [[ -n $weights_file ]]; then
        weights=("pretrained_weights=$weights_file")
    else
        "$PYTHON" download_models.py models="$backbone"
    fi
    "$PYTHON" download_datasets.py datasets="$archive" unzip=true pytorch_data_dir="$data_dir"
    if [[ -n $cropped ]]; then
        "$PYTHON" crop_datasets.py dataset_name="$cropped" crop_type=five crop_ratio=0.5 splits=train \
            pytorch_data_dir="$data_dir"
    fi
    "$PYTHON" train_segmentation_eigen.py --config-name "$config" pytorch_data_dir="$data_dir" \
        output_root="$(dirname "$run")" experiment_name="$(basename "$run")" ckpt_path=last \
        ${weights[@]+"${weights[@]}"} "$@"
    # Unquoted, because the variable may hold several keys.
    "$PYTHON" eval_segmentation.py model_paths="[$run/best.ckpt,$run/last.ckpt]" ${EVAL_ARGS:-}
}
