"""What operators see of a server: logs, traces, metrics."""
