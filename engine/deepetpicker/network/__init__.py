"""The 3D-ResUNet: as it is trained, as it is folded for inference, as a file, and on a device."""
