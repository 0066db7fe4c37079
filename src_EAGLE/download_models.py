"""Fetch pretrained backbones and the released EAGLE checkpoints: ``python download_models.py --list`` shows them."""

from eagle.commands.provisions import download_models_main

if __name__ == "__main__":
    download_models_main()
