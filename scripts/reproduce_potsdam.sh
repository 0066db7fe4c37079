#!/usr/bin/env bash
# Potsdam-3 with DINO ViT-B/8, our own recipe: download, train and evaluate in one command; run it again to continue.
# usage: scripts/reproduce_potsdam.sh [training_key=value …]   (reproduce_common.sh lists what the environment may set)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/reproduce_common.sh"
reproduce train_config_potsdam potsdam dino_vitb8 '' devices=1 "$@"
