"""Tests of service.steering.solver."""
