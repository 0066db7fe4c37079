#!/usr/bin/env bash
# Potsdam-3 with DINO ViT-B/8, our own recipe: download, train and evaluate in one command; repeat it to resume.
# usage: scripts/reproduce_potsdam.sh [training_key=value …]   (environment variables: see reproduce_common.sh)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/reproduce_common.sh"
reproduce train_config_potsdam potsdam dino_vitb8 '' devices=1 "$@"
