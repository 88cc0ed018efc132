"""Rows → student → scores."""
