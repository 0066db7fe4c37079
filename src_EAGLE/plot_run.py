"""Draw curves of training runs: ``python plot_run.py RUN_FOLDER … [key=value]``."""

from eagle.commands.runs import plot_run_main

if __name__ == "__main__":
    plot_run_main()
