"""Whole stories that a user copies."""
