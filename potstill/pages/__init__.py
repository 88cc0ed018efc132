"""Local pages: a run's rows, its progress, the student to try."""
