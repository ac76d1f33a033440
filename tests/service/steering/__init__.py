"""Tests of service.steering."""
