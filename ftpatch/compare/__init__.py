"""What changed for tracing between two builds."""
