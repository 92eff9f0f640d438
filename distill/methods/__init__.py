"""One file per way to teach a student; none knows another."""
