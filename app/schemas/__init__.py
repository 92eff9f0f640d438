"""What goes over the wire, in either direction."""
