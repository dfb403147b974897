"""From a model file and tomograms to tables of picks."""
