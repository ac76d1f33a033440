"""Offline: interactions to recommender to sparse autoencoder to concepts to evaluation, with torch."""
