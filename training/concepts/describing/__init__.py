"""Descriptions of neurons, by attribute values or a language model, tested on unseen items."""
