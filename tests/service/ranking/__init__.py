"""Tests of service.ranking."""
