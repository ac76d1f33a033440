"""Wire to domain: every check of a request."""
