"""One request for pictures, from its checked body to the bytes of its answer."""
