"""The network, its file, and the import of checkpoints made elsewhere."""
