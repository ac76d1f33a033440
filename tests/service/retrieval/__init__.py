"""Tests of service.retrieval."""
