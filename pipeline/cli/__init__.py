"""The command line: one module a group of commands, all on one application."""

from pipeline.cli import bench, doctor, export, fetch, predict, report, run, store
from pipeline.cli.app import app, main

__all__ = ["app", "bench", "doctor", "export", "fetch", "main", "predict", "report", "run", "store"]
