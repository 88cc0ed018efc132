"""Pruning: weights, heads, neurons and layers that a student can do without. `methods` lists them by name."""
