"""A run's report: its facts, tables and plots."""
