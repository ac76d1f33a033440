"""Tests of service.labels."""
