"""A lab's own store of streams: one Zarr v3 group each, on a disk or on any object store."""
