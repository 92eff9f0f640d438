"""Few steps: students that need 8, 4, 2 or 1 of a teacher's 50, and what they are taught by."""
