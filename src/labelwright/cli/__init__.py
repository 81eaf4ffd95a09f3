"""The command line: parse, build objects, call; no logic."""

from labelwright.cli.app import main

__all__ = ["main"]
