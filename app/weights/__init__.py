"""What is served: warmed up, refreshed while the service runs, rolled back."""
