"""Tests of clients in other languages."""
