"""Batches and epochs in Lightning's hands: loss, step, what happens beside the steps, trainer, several processes."""
