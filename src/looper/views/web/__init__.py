"""Pages that open from the disk: one file each, nothing fetched, nothing run."""
