"""Running the plan: serially or on Dask."""
