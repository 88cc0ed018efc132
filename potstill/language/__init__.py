"""Languages and words: which a text is in, what a label or a kind of text is called."""
