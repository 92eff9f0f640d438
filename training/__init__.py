"""Learning: the one loop, what plugs into it, and the trainers of the base model."""
