"""What training and picking do to a tomogram alike: working scale, grey values, tiles, and a particle's label."""
