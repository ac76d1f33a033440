"""Tests of service.users."""
