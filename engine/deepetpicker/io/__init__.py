"""Files in and out: volumes, coordinates, data folders, model cards, manifests. No torch, Python 3.8."""
