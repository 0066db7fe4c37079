"""The name of ``eagle.config.application`` until all commands import that."""

from eagle.config.application import parse_command_line, run_command

__all__ = ["parse_command_line", "run_command"]
