"""A recipe of steps that make a student smaller, what each step did, and files that engines load."""
