"""Writing with a causal language model in this process: what the transformers teacher and a student have in common."""
