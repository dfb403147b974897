"""From tomograms and labelled centres to a model file."""
