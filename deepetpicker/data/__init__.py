"""From a memory-mapped tomogram to what the network reads: intensity, working grid, patches, augmentation."""
