#!/usr/bin/env bash
# Cityscapes (27 classes) with DINO ViT-B/8, the published recipe: download, crop, train and evaluate in one command; run it again to continue.
# usage: scripts/reproduce_cityscapes.sh [training_key=value …]   (reproduce_common.sh lists what the environment may set)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/reproduce_common.sh"
reproduce train_config_cityscapes cityscapes dino_vitb8 cityscapes devices=1 "$@"
