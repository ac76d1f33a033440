"""Imports, stores and synchronises label sets in addition to a bundle's own."""
