"""The command line: one module a group of commands, all on one application."""

from pipeline.cli import bench, fetch, report, run, store
from pipeline.cli.app import app, main

__all__ = ["app", "bench", "fetch", "main", "report", "run", "store"]
