"""Candidates without a model: blobs of the right size, and from a few examples what looks like these."""
