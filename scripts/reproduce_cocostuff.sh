#!/usr/bin/env bash
# COCO-Stuff (27 classes) with DINO ViT-S/8, the published recipe: download, crop, train and evaluate in one command; run it again to continue.
# usage: scripts/reproduce_cocostuff.sh [training_key=value …]   (reproduce_common.sh lists what the environment may set)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/reproduce_common.sh"
reproduce train_config_cocostuff cocostuff dino_vits8 cocostuff27 devices=2 "$@"
