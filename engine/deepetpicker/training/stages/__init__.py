"""The stages of a training beside the one that is judged: a first one before it, and a last one after it."""
