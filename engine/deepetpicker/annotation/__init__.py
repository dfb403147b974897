"""Annotating tomograms by hand, without any window: what is annotated, how it is kept, how it becomes tables.

numpy alone, Python 3.8; the windows and Scipion's protocol stand on it.
"""
