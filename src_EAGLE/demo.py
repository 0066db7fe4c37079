"""Serve a web page that segments photographs: ``python demo.py checkpoint=CHECKPOINT``."""

from eagle.commands.photographs import demo_main

if __name__ == "__main__":
    demo_main()
