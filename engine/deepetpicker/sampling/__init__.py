"""What a training is made of: tomograms and particles, what is held out, and the patches drawn from the rest."""
