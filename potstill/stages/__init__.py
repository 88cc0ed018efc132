"""The stages of a run: what each does and depends on."""
