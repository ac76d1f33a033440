"""What is stored of users."""
