"""Tests of service.bundle."""
