"""Tests of the plugin on simulated data; run by pytest or by ``python -m scipion tests``."""
