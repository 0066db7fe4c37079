#!/usr/bin/env bash
# Cityscapes (27 classes) with DINO ViT-B/8, the released recipe: download, crop, train and evaluate in one command; repeat it to resume.
# usage: scripts/reproduce_cityscapes.sh [training_key=value …]   (environment variables: see reproduce_common.sh)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/reproduce_common.sh"
reproduce train_config_cityscapes cityscapes dino_vitb8 cityscapes devices=1 "$@"
