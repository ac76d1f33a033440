"""Methods that relate concepts to neurons."""
