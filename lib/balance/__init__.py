"""Repair by training: imbalance losses, the training loop, evaluation."""
