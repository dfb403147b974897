"""Picking on many workers: dask.distributed hands a tomogram at a time to processes here, in jobs or anywhere."""
