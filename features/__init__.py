"""Pure computation: arrays and value types in and out. No files, network, clock, global state, Prefect or Dask."""
