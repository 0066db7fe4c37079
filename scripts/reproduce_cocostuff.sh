#!/usr/bin/env bash
# COCO-Stuff (27 classes) with DINO ViT-S/8, the released recipe: download, crop, train and evaluate in one command; repeat it to resume.
# usage: scripts/reproduce_cocostuff.sh [training_key=value …]   (environment variables: see reproduce_common.sh)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/reproduce_common.sh"
reproduce train_config_cocostuff cocostuff dino_vits8 cocostuff27 devices=2 "$@"
