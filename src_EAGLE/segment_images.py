"""Write masks for your own images: ``python segment_images.py IMAGE_OR_FOLDER … --checkpoint CHECKPOINT``."""

from eagle.commands.photographs import segment_images_main

if __name__ == "__main__":
    segment_images_main()
