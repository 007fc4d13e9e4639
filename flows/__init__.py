"""Prefect flows: what is observed and when it runs."""
