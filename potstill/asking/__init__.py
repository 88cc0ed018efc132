"""Asking a teacher: requests, the ledger of replies, budgets."""
